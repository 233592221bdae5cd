"""Times one training step: lasers, vq, no bottleneck; JAX and PyTorch.

  python benchmarks/train_step.py

The same network (the paper's), batch and optimizer for all; one interleaved
run; medians, and medians of ratios within a round, since other work on the
machine slows all of a round alike. PyTorch (plain modules, the same parameter
counts) takes part where it is installed, on the same device. On a card its
networks are compiled and float32 products are of TF32, as JAX's are; with
--bfloat16 the networks of both run in bfloat16 too. A time is the mean of
--steps steps, since a card works while Python goes on. Prints a table in
Markdown, and keeps it with --json.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from record import Record, synchronize_torch, torch_device

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
_STEPS = flags.DEFINE_integer('steps', 1, 'Steps of a round.')
_NAMES = flags.DEFINE_list(
  'names', 'lasers,vq,none', 'Steps to time; none among them.'
)
_BFLOAT16 = flags.DEFINE_bool('bfloat16', False, 'Time bfloat16 as well.')
_JSON = flags.DEFINE_string('json', '', 'File of the results.')

D, K, S = 16, 512, 5
Step = Callable[[int], None]


class Nothing(Bottleneck):
  """Passes the latent on: what is left of a step without a bottleneck."""

  def __call__(self, z, train, mask=None):
    return Latent(z, z, {}, {})


def jax_step(name: str, images: np.ndarray, dtype: str = 'float32') -> Step:
  """Builds a function that does some steps of our trainer."""
  encoder, decoder = NETWORKS['vqvae']
  fields = {'none': {}, 'vq': {'K': K}, 'lasers': {'K': K, 'S': S}}[name]
  kind = {**BOTTLENECKS, 'none': Nothing}[name]
  networks = encoder(D=D, dtype=dtype), decoder(D=D, dtype=dtype)
  model = Autoencoder(networks[0], kind(D=D, **fields), Plain(networks[1]))
  weights = {'pixel': 10.0, 'dictionary': 1.0, 'commitment': 0.25}
  objective = Objective(model, LossSettings('mse', weights))
  optimizer = make_optimizer(OptimizerSettings(), 10_000)
  step = jax.jit(
    make_train_step(objective, optimizer, 0.999),
    donate_argnums=0,
  )
  batch = jnp.asarray(images)
  state = create_train_state(model, optimizer, to_float(batch), 0)

  def run(steps: int) -> None:
    nonlocal state
    for _ in range(steps):
      state, metrics = step(state, batch)
    jax.block_until_ready(metrics)

  return run


def torch_steps(name: str, images: np.ndarray, bfloat16: bool = False) -> Step:
  """Builds a function that does some steps of PyTorch."""
  import torch_step

  step = torch_step.build(name, images, (D, K, S), torch_device(), bfloat16)

  def run(steps: int) -> None:
    for _ in range(steps):
      step()
    synchronize_torch()

  return run


def make_steps(images: np.ndarray) -> dict[str, Step]:
  """Builds the steps to time, by name."""
  packages = {'JAX': jax_step}
  if importlib.util.find_spec('torch') and jax.default_backend() != 'tpu':
    packages['PyTorch'] = torch_steps
  steps = {}
  for package, build in packages.items():
    for name in _NAMES.value:
      steps[f'{package} {name}'] = build(name, images)
    for name in _NAMES.value if _BFLOAT16.value else ():
      argument = 'bfloat16' if package == 'JAX' else True
      steps[f'{package} {name}, bfloat16'] = build(name, images, argument)
  return steps


def measure(steps: dict[str, Step], rounds: int):
  """Times each step once a round; the first two rounds warm up.

  A pause before each lets the threads of PyTorch go to sleep: they wait for
  more work in a loop, which would take a core from the next step.
  """
  times = {name: [] for name in steps}
  for i in range(rounds + 2):
    for name, step in steps.items():
      time.sleep(0.05)
      start = time.perf_counter()
      step(_STEPS.value)
      if i >= 2:
        times[name].append((time.perf_counter() - start) / _STEPS.value)
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
  record = Record(
    _JSON.value,
    __doc__,
    batch=_BATCH.value,
    side=_SIDE.value,
    rounds=_ROUNDS.value,
    steps=_STEPS.value,
  )
  times = measure(make_steps(images), _ROUNDS.value)
  print(
    f'{jax.devices()[0].device_kind}, batch {_BATCH.value}, '
    f'{_SIDE.value}×{_SIDE.value} pixels, {_ROUNDS.value} rounds\n'
  )
  base = 'JAX vq' if 'JAX vq' in times else next(iter(times))
  print(
    f'| step | ms | images/s | × {base} | PyTorch : JAX '
    '| fraction of the bottleneck |'
  )
  print('|---|---|---|---|---|---|')
  for name, seconds in times.items():
    ms = 1e3 * statistics.median(seconds)
    kind, _, precision = name.partition(', ')
    nothing = ', '.join([f'{kind.split()[0]} none', *precision.split()])
    fraction = 1 - 1 / ratio(times, name, nothing)
    record.add(name, ms=ms, fraction=fraction, seconds=seconds)
    print(
      f'| {name} | {ms:.1f} | {1e3 * _BATCH.value / ms:.0f} '
      f'| {ratio(times, name, base):.2f} | {against_torch(times, name)} '
      f'| {max(fraction, 0):.0%} |'
    )
  record.finish()


if __name__ == '__main__':
  app.run(main)
