"""Times the layers of the paper's network, one at a time, beside PyTorch.

  python benchmarks/layers.py

Each layer runs forwards and backwards, as in a training step: gradients of
parameters always, of the input except in the first layer. One interleaved run;
medians, and medians of ratios within a round. PyTorch runs on the CPU. Prints a
table in Markdown.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import torch
import train_step
from absl import app, flags
from torch import nn as tnn

from lasers_jax.core.memory import keep_freed_memory
from lasers_jax.networks import layers

_float = jnp.float32
_conv = {'dtype': _float, 'use_bias': False}
_plain = functools.partial(tnn.Conv2d, bias=False)
# Name: side of the input, its channels, our layer, PyTorch's.
LAYERS = {
  'halving 3 → 64': (
    32, 3, layers.DownConv(64), tnn.Conv2d(3, 64, 4, 2, 1)
  ),
  'halving 64 → 128': (
    16, 64, layers.DownConv(128), tnn.Conv2d(64, 128, 4, 2, 1)
  ),
  '3×3 128 → 128': (
    8, 128, layers.conv(128, 3, _float), tnn.Conv2d(128, 128, 3, 1, 1)
  ),
  '3×3 128 → 32': (
    8, 128, layers.conv(32, 3, **_conv), _plain(128, 32, 3, padding=1)
  ),
  '1×1 32 → 128': (
    8, 32, layers.conv(128, 1, **_conv), _plain(32, 128, 1)
  ),
  '1×1 128 → 16': (
    8, 128, layers.conv(16, 1, _float), tnn.Conv2d(128, 16, 1)
  ),
  '3×3 16 → 128': (
    8, 16, layers.conv(128, 3, _float), tnn.Conv2d(16, 128, 3, 1, 1)
  ),
  'doubling 128 → 64': (
    8, 128, layers.UpConv(64), tnn.ConvTranspose2d(128, 64, 4, 2, 1)
  ),
  'doubling 64 → 3': (
    16, 64, layers.UpConv(3), tnn.ConvTranspose2d(64, 3, 4, 2, 1)
  ),
}  # fmt: skip


def jax_layer(layer, x: np.ndarray) -> train_step.Step:
  """Builds a function that runs `layer` forwards and backwards some times."""
  x = jnp.asarray(x.transpose(0, 2, 3, 1))
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  first = x.shape[-1] == 3

  @jax.jit
  def both_ways(variables, x, gradient):
    y, pull = jax.vjp(layer.apply, variables, x)
    of_variables, of_x = pull(gradient)
    return y, of_variables, None if first else of_x

  y = jax.eval_shape(layer.apply, variables, x)
  gradient = jax.random.normal(jax.random.key(1), y.shape)

  def run(times: int) -> None:
    for _ in range(times):
      results = both_ways(variables, x, gradient)
    jax.block_until_ready(results)

  return run


def torch_layer(layer, x: np.ndarray) -> train_step.Step:
  """Builds a function that runs `layer` forwards and backwards some times."""
  x = torch.tensor(x, requires_grad=x.shape[1] != 3)
  gradient = torch.randn(layer(x).shape)

  def run(times: int) -> None:
    for _ in range(times):
      x.grad = None
      layer.zero_grad()
      layer(x).backward(gradient)

  return run


def main(_) -> None:
  keep_freed_memory()  # as every program does
  print(f'batch {flags.FLAGS.batch}, milliseconds forwards and backwards\n')
  print('| layer | JAX | PyTorch | PyTorch / JAX |')
  print('|---|---|---|---|')
  for name, (side, channels, ours, theirs) in LAYERS.items():
    shape = (flags.FLAGS.batch, channels, side, side)
    x = np.random.default_rng(0).normal(size=shape).astype('f4')
    steps = {'JAX': jax_layer(ours, x), 'PyTorch': torch_layer(theirs, x)}
    times = train_step.measure(steps, flags.FLAGS.rounds)
    jax_ms, torch_ms = (1e3 * statistics.median(t) for t in times.values())
    ratio = train_step.ratio(times, 'PyTorch', 'JAX')
    print(f'| {name} | {jax_ms:.2f} | {torch_ms:.2f} | {ratio:.2f} |')


if __name__ == '__main__':
  app.run(main)
