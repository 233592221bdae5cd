"""Times the priors of latents beside scikit-learn's Gaussian mixture.

  python benchmarks/priors.py
  python benchmarks/priors.py --n=1000000 --d=256 --rounds=1 --iterations=2

Fits each prior on --n latents of width --d, ten Gaussians that depend on all
dimensions, and draws as many, compilation apart. One interleaved run of
--rounds; medians, and medians of the ratios within a round: how many times
longer scikit-learn's mixture takes, of ten full components and in float32, as
are all. Its EM is stopped after --iterations, and ours in batches after
--passes; both are given by the iteration too, without K-means at the start.

Memory is the highest of a process of its own that fits and draws once, less
that of one that makes the latents alone (of the host; on Linux). Prints a table
in Markdown.
"""

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags, logging

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lasers_jax.priors.vector import Prior, draw
from lasers_jax.priors.vector.gaussian import Gaussian
from lasers_jax.priors.vector.gmm import GMM
from lasers_jax.priors.vector.kde import KDE
from lasers_jax.priors.vector.pmfs import PMFS
from lasers_jax.priors.vector.product import ProductPMF

_N = flags.DEFINE_integer('n', 50_000, 'Latents to fit, and to draw.')
_D = flags.DEFINE_integer('d', 32, 'Width of a latent.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds of the interleaved run.')
_ITERATIONS = flags.DEFINE_integer('iterations', 5, "Of scikit-learn's EM.")
_PASSES = flags.DEFINE_integer('passes', 3, 'Passes of EM in batches.')
_MEMORY_OF = flags.DEFINE_string(
  'memory_of', None, 'Only prints the MiB of the process of one prior.'
)

CORES = len(os.sched_getaffinity(0))
K = 10
PEER = 'scikit-learn GMM'
BATCHES = 'gmm, batches'
NOTHING = 'nothing'


class Method(NamedTuple):
  """`fit()` returns what `sample(fitted)` draws from.

  `start()` is the part of `fit` before its iterations and one of these;
  `iterations(fitted)` is how many there were.
  """

  fit: Callable[[], Any]
  sample: Callable[[Any], Any]
  start: Callable[[], Any] | None = None
  iterations: Callable[[Any], int] | None = None


def make_latents() -> np.ndarray:
  """Draws float32 [n, d] of ten Gaussians, some at a time."""
  rng = np.random.default_rng(0)
  n, d = _N.value, _D.value
  centres = rng.standard_normal((K, d)).astype(np.float32)
  mixing = rng.standard_normal((K, d, d), np.float32) / np.float32(d**0.5)
  latents = np.empty((n, d), np.float32)
  for i, rows in enumerate(np.array_split(latents, -(-n // 65_536) * K)):
    noise = rng.standard_normal(rows.shape, np.float32)
    rows[:] = centres[i % K] + noise @ mixing[i % K]
  return latents


def make_methods(latents: np.ndarray) -> dict[str, Method]:
  passes = GMM(K, 'batches', _PASSES.value, nats=0.0)
  one_pass = GMM(K, 'batches', 1, nats=0.0)
  return {
    'pmfs, bins': ours(PMFS(), latents),
    'gaussian': ours(Gaussian(), latents),
    'kde, h = 0.3': ours(KDE(0.3), latents),
    'product': ours(ProductPMF(), latents),
    BATCHES: ours(passes, latents)._replace(
      start=lambda: one_pass.fit(latents),
      iterations=lambda _: _PASSES.value,
    ),
    PEER: scikit_learn(latents),
  }


def ours(prior: Prior, latents: np.ndarray) -> Method:
  def sample(state):
    return draw(prior, state, jax.random.key(1), len(latents))

  return Method(lambda: prior.fit(latents), sample)


def scikit_learn(latents: np.ndarray) -> Method:
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.mixture import GaussianMixture

  def fit(iterations: int):
    mixture = GaussianMixture(K, max_iter=iterations, random_state=0)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', ConvergenceWarning)
      return mixture.fit(latents)

  def sample(mixture):
    with warnings.catch_warnings():
      # float32 covariances are not as symmetric as NumPy would have them.
      warnings.simplefilter('ignore', RuntimeWarning)
      return mixture.sample(len(latents))

  return Method(
    lambda: fit(_ITERATIONS.value),
    sample,
    lambda: fit(1),
    lambda mixture: mixture.n_iter_,
  )


def seconds(function: Callable[..., Any], *arguments) -> tuple[float, Any]:
  start = time.perf_counter()
  result = jax.block_until_ready(function(*arguments))
  return time.perf_counter() - start, result


def run(method: Method) -> tuple[dict[str, float], Any]:
  """Takes the seconds of fitting, of drawing, and of an iteration of EM."""
  times = {}
  times['fit'], fitted = seconds(method.fit)
  times['draw'], _ = seconds(method.sample, fitted)
  if method.iterations and (more := method.iterations(fitted) - 1):
    first, _ = seconds(method.start)
    times['iteration'] = (times['fit'] - first) / more
  return times, fitted


def measure(methods: dict[str, Method], rounds: int):
  """Returns the times of each method, by round, and what it fitted last."""
  times, fitted = {name: [] for name in methods}, {}
  for name, method in methods.items():
    if name != PEER:  # which has nothing to compile
      method.sample(method.fit())
  for i in range(rounds):
    for name, method in methods.items():
      taken, fitted[name] = run(method)
      times[name].append(taken)
      print(f'round {i + 1} of {rounds}: {name}: {taken}', file=sys.stderr)
  return times, fitted


def peak_of(name: str) -> float:
  """Returns the peak memory of a process that runs one method, in MiB."""
  command = [sys.executable, __file__, f'--memory_of={name}']
  for flag in (_N, _D, _ITERATIONS, _PASSES):
    command.append(f'--{flag.name}={flag.value}')
  return float(subprocess.check_output(command, text=True).split()[-1])


def print_own_peak(name: str) -> None:
  latents = make_latents()
  if name != NOTHING:
    method = make_methods(latents)[name]
    jax.block_until_ready(method.sample(method.fit()))
  # Not `getrusage`: its peak begins with that of the process it came from.
  status = Path('/proc/self/status').read_text(encoding='utf-8')
  print(int(status.partition('VmHWM:')[2].split()[0]) / 2**10)


def rows(times, methods) -> list[list[str]]:
  """Returns a row of cells for each method."""
  nothing = peak_of(NOTHING)

  def median(name: str, part: str) -> str:
    values = [x[part] for x in times[name] if part in x]
    return f'{statistics.median(values):.3g}' if values else '–'

  def ratio(name: str, part: str) -> str:
    pairs = zip(times[PEER], times[name], strict=True)
    values = [a[part] / b[part] for a, b in pairs if part in a and part in b]
    return f'{statistics.median(values):.3g}' if values else '–'

  table = []
  for name in methods:
    print(f'memory of {name}', file=sys.stderr)
    cells = [median(name, part) for part in ('fit', 'draw', 'iteration')]
    ratios = [ratio(name, part) for part in ('fit', 'draw', 'iteration')]
    table.append([name, *cells, *ratios, f'{peak_of(name) - nothing:.0f}'])
  return table


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)
  if _MEMORY_OF.value:
    print_own_peak(_MEMORY_OF.value)
    return
  latents = make_latents()
  methods = make_methods(latents)
  times, fitted = measure(methods, _ROUNDS.value)
  header = ['prior', 'fit s', 'draw s', 'EM iteration s']
  header += [f'{PEER} / its {x}' for x in ('fit', 'draw', 'iteration')]
  header.append('MiB')
  print(
    f'n = {_N.value}, d = {_D.value}, {_ROUNDS.value} rounds, '
    f'{jax.devices()[0].device_kind}, {CORES} cores\n'
  )
  for row in [header, ['---'] * len(header), *rows(times, methods)]:
    print('| ' + ' | '.join(row) + ' |')
  peer = fitted[PEER]
  needs = f'{peer.n_iter_}' if peer.converged_ else f'more than {peer.n_iter_}'
  print(f'\n{PEER}: {peer.n_iter_} iterations in its fit; it needs {needs}.')


if __name__ == '__main__':
  app.run(main)
