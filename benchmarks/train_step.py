"""Times one training step: lasers, vq, no bottleneck; JAX and PyTorch.

  python benchmarks/train_step.py

The same network (the paper's), batch and optimizer for all; one interleaved
run; medians, and medians of ratios within a round, since other work on the
machine slows all of a round alike. PyTorch (plain modules, the same parameter
counts) takes part where it is installed, and runs on the CPU: on another
device only JAX is timed. Prints a table in Markdown.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from lasers_jax.bottlenecks import BOTTLENECKS, Bottleneck, Latent
from lasers_jax.core.images import to_float
from lasers_jax.core.memory import keep_freed_memory
from lasers_jax.decoders import Plain
from lasers_jax.networks import NETWORKS
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.training.objective import LossSettings, Objective
from lasers_jax.training.optimizer import OptimizerSettings, make_optimizer
from lasers_jax.training.state import create_train_state
from lasers_jax.training.step import make_train_step

_BATCH = flags.DEFINE_integer('batch', 32, 'Images in a batch.')
_SIDE = flags.DEFINE_integer('side', 32, 'Side of an image in pixels.')
_ROUNDS = flags.DEFINE_integer('rounds', 15, 'Rounds of the interleaved run.')

D, K, S = 16, 512, 5


class Nothing(Bottleneck):
  """Passes the latent on: what is left of a step without a bottleneck."""

  def __call__(self, z, train, mask=None):
    return Latent(z, z, {}, {})


def jax_step(name: str, images: np.ndarray) -> Callable[[], None]:
  """Builds a function that does one step of our trainer."""
  encoder, decoder = NETWORKS['vqvae']
  fields = {'none': {}, 'vq': {'K': K}, 'lasers': {'K': K, 'S': S}}[name]
  kind = {**BOTTLENECKS, 'none': Nothing}[name]
  model = Autoencoder(encoder(D=D), kind(D=D, **fields), Plain(decoder(D=D)))
  weights = {'pixel': 10.0, 'dictionary': 1.0, 'commitment': 0.25}
  objective = Objective(model, LossSettings('mse', weights))
  optimizer = make_optimizer(OptimizerSettings(), 10_000)
  step = jax.jit(
    make_train_step(objective, optimizer, 0.999),
    donate_argnums=0,
  )
  batch = jnp.asarray(images)
  state = create_train_state(model, optimizer, to_float(batch), 0)

  def run() -> None:
    nonlocal state
    state, metrics = step(state, batch)
    jax.block_until_ready(metrics)

  return run


def measure(steps: dict[str, Callable[[], None]], rounds: int):
  """Times each step once a round; the first two rounds warm up."""
  times = {name: [] for name in steps}
  for i in range(rounds + 2):
    for name, step in steps.items():
      start = time.perf_counter()
      step()
      if i >= 2:
        times[name].append(time.perf_counter() - start)
  return times


def ratio(times, name: str, base: str) -> float:
  """Returns the median over rounds of `name`'s time over `base`'s."""
  return statistics.median(
    a / b for a, b in zip(times[name], times[base], strict=True)
  )


def against_torch(times, name: str) -> str:
  """Returns the time of PyTorch's step over that of a JAX step, or ''."""
  peer = name.replace('JAX', 'PyTorch')
  return (
    f'{ratio(times, peer, name):.2f}' if peer in times.keys() - {name} else ''
  )


def main(_) -> None:
  keep_freed_memory()  # as every program does
  shape = (_BATCH.value, _SIDE.value, _SIDE.value, 3)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  steps = {f'JAX {n}': jax_step(n, images) for n in ('lasers', 'vq', 'none')}
  on_cpu = jax.default_backend() == 'cpu'
  if on_cpu and importlib.util.find_spec('torch'):
    import torch_step

    for name in ('lasers', 'vq', 'none'):
      steps[f'PyTorch {name}'] = torch_step.build(name, images, D, K, S)
  times = measure(steps, _ROUNDS.value)
  print(
    f'{jax.devices()[0].device_kind}, batch {_BATCH.value}, '
    f'{_SIDE.value}×{_SIDE.value} pixels, {_ROUNDS.value} rounds\n'
  )
  print(
    '| step | ms | images/s | × JAX vq | PyTorch : JAX '
    '| fraction of the bottleneck |'
  )
  print('|---|---|---|---|---|---|')
  for name, seconds in times.items():
    ms = 1e3 * statistics.median(seconds)
    fraction = 1 - 1 / ratio(times, name, name.split()[0] + ' none')
    print(
      f'| {name} | {ms:.1f} | {1e3 * _BATCH.value / ms:.0f} '
      f'| {ratio(times, name, "JAX vq"):.2f} | {against_torch(times, name)} '
      f'| {max(fraction, 0):.0%} |'
    )


if __name__ == '__main__':
  app.run(main)
