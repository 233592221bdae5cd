"""Held-out error against time of dictionary learners, ours and peers'.

  python benchmarks/dictionary_learning.py --plot=docs/dictionary_learning.png

Two kinds of signals: 8×8 patches of grey photographs without their means (the
test patches are from other photographs), and sums of S random atoms of a
planted dictionary, with noise. Every learner starts from the same atoms and
sees the same batches. The error is |x - Dc|² / |x|² over the test signals,
each coded with S atoms by our `batch_omp`, whatever the learner's own code is.

The learners take turns: each goes on to the next of --budgets, in seconds of
learning alone; compilation is apart. Peers take part where they are installed
(`pip install spams-bin scikit-learn`), with all cores: SPAMS's trainDL with S
atoms a code (mode 3), which begins anew for each budget and counts whole
seconds; MiniBatchDictionaryLearning, which learns by the lasso alone. Prints
tables in Markdown.
"""

import functools
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from lasers_jax import coding
from lasers_jax.data.photos import open_photos

_BUDGETS = flags.DEFINE_list(
  'budgets',
  '0.25,0.5,1,2.5,5,10,20',
  'Seconds of learning after which the error is measured.',
)
_BATCH = flags.DEFINE_integer('batch', 1024, 'Signals of one update.')
_SIGNALS = flags.DEFINE_integer('signals', 200_000, 'Signals to learn from.')
_PLOT = flags.DEFINE_string('plot', None, 'File of the plot; none if unset.')

CORES = len(os.sched_getaffinity(0))
SIDE = 8  # of a patch, in pixels
HELD_OUT = {'test': ('chelsea', 'flower', 'coffee')}
TESTED = 16384
OURS = ('online', 'gradient')
ALPHA = 0.3  # of the lasso, in norms of a signal: the best of 0.1, 0.3, 0.6


class Problem(NamedTuple):
  name: str
  train: np.ndarray  # float32 [N, D]
  test: np.ndarray
  k: int
  s: int
  start: np.ndarray  # the first atoms, float32 [D, K]
  baseline: float | None  # the error of the planted dictionary


class Look(NamedTuple):
  seconds: float  # of learning
  updates: int
  dictionary: np.ndarray  # [D, K]


class Result(NamedTuple):
  seconds: float
  updates: int
  error: float


def problems() -> list[Problem]:
  n = _SIGNALS.value
  patches = problem(
    'patches', photo_patches('train', n), photo_patches('test', TESTED), 512, 4
  )
  signals, truth = planted_signals(n + TESTED, 64, 256, 4)
  planted = problem('planted', signals[:n], signals[n:], 256, 4)
  return [patches, planted._replace(baseline=error(planted, truth))]


def problem(name: str, train, test, k: int, s: int) -> Problem:
  rows = coding.pick_signals(jax.random.key(0), jnp.asarray(train), k)
  start = np.asarray(coding.normalize_atoms(rows.T))
  return Problem(name, train, test, k, s, start, None)


def photo_patches(split: str, count: int) -> np.ndarray:
  """Draws grey patches, as many from each photograph: [count, SIDE²]."""
  rng, found = np.random.default_rng(0), []
  photos = open_photos('', split, held_out=HELD_OUT)
  for photo in photos:
    grey = photo['image'].astype(np.float32).mean(axis=2) / 255
    windows = np.lib.stride_tricks.sliding_window_view(grey, (SIDE, SIDE))
    rows, columns = (
      rng.integers(0, size, -(-count // len(photos)))
      for size in windows.shape[:2]
    )
    found.append(windows[rows, columns].reshape(-1, SIDE**2))
  signals = rng.permutation(np.concatenate(found))[:count]
  return signals - signals.mean(axis=1, keepdims=True)


def planted_signals(n: int, d: int, k: int, s: int):
  """Returns signals [n, d] of s atoms each, and the dictionary [d, k]."""
  rng = np.random.default_rng(0)
  truth = rng.standard_normal((k, d))
  truth /= np.linalg.norm(truth, axis=1, keepdims=True)
  signals = 0.1 * rng.standard_normal((n, d))
  for _ in range(s):
    sizes = rng.uniform(0.5, 1.5, (n, 1)) * rng.choice([-1, 1], (n, 1))
    signals += sizes * truth[rng.integers(0, k, n)]
  return signals.astype(np.float32), truth.T.astype(np.float32)


def error(problem: Problem, dictionary) -> float:
  """Returns |x - Dc|² / |x|² over the test signals."""
  dictionary = coding.normalize_atoms(jnp.asarray(dictionary, jnp.float32))
  code = coding.batch_omp(problem.test, dictionary, problem.s)
  residuals = problem.test - np.asarray(coding.reconstruct(code, dictionary))
  return float(np.sum(residuals**2) / np.sum(problem.test**2))


def batches(problem: Problem) -> Iterator[np.ndarray]:
  size = _BATCH.value
  while True:
    for start in range(0, len(problem.train) - size + 1, size):
      yield problem.train[start : start + size]


def in_time(
  budgets, update: Callable[[], None], read: Callable[[], np.ndarray]
) -> Iterator[Look]:
  """Updates until each budget is spent, and yields what `read` finds then."""
  spent, count = 0.0, 0
  for budget in budgets:
    while spent < budget:
      start = time.perf_counter()
      update()
      dictionary = read()
      spent += time.perf_counter() - start
      count += 1
    yield Look(spent, count, dictionary)


def ours(name: str, problem: Problem, budgets) -> Iterator[Look]:
  learner = getattr(coding, name)(problem.s)
  source = batches(problem)
  state = learner.init(problem.start)
  jax.block_until_ready(learner.update(state, next(batches(problem))))

  def update():
    nonlocal state
    state = learner.update(state, next(source))

  return in_time(budgets, update, lambda: np.asarray(learner.dictionary(state)))


def by_spams(problem: Problem, budgets) -> Iterator[Look | None]:
  import spams

  signals = np.asfortranarray(problem.train.T)
  for budget in budgets:
    if budget < 1:
      yield None  # it would begin, and learn without an end
      continue
    start = time.perf_counter()
    dictionary, model = spams.trainDL(
      signals,
      return_model=True,
      D=np.asfortranarray(problem.start),
      mode=3,  # min |x - Dc|² with at most lambda1 atoms
      lambda1=problem.s,
      batchsize=_BATCH.value,
      iter=-round(budget),
      numThreads=CORES,
      verbose=False,
    )
    yield Look(time.perf_counter() - start, model['iter'], dictionary)


def by_scikit_learn(problem: Problem, budgets) -> Iterator[Look]:
  from sklearn.decomposition import MiniBatchDictionaryLearning

  # Its coordinate descent does not come to an end in float32.
  model = MiniBatchDictionaryLearning(
    problem.k,
    alpha=ALPHA * np.linalg.norm(problem.train, axis=1).mean(),
    fit_algorithm='cd',
    batch_size=_BATCH.value,
    dict_init=problem.start.T.astype(np.float64),
    n_jobs=CORES,
  )
  source = batches(problem)
  return in_time(
    budgets,
    lambda: model.partial_fit(next(source).astype(np.float64)),
    lambda: model.components_.T,
  )


def learners() -> dict[str, Callable[..., Iterator[Look]]]:
  found = {name: functools.partial(ours, name) for name in OURS}
  if importlib.util.find_spec('spams'):
    found['SPAMS trainDL'] = by_spams
  if importlib.util.find_spec('sklearn'):
    found['MiniBatchDictionaryLearning'] = by_scikit_learn
  return found


def measure(problem: Problem) -> dict[str, list[Result | None]]:
  """Lets the learners take turns; None where one made no look."""
  budgets = [float(x) for x in _BUDGETS.value]
  runs = {name: f(problem, budgets) for name, f in learners().items()}
  results = {name: [] for name in runs}
  for budget in budgets:
    print(f'{problem.name}: {budget:g} s', file=sys.stderr)
    for name, run in runs.items():
      look = next(run)
      results[name].append(
        look and Result(*look[:2], error(problem, look.dictionary))
      )
  return results


def print_table(problem: Problem, results) -> None:
  first = f'at the start {error(problem, problem.start):.4f}'
  if problem.baseline is not None:
    first += f', of the planted dictionary {problem.baseline:.4f}'
  n, d = problem.train.shape
  print(
    f'\n{problem.name}: {n}×{d} signals, K = {problem.k}, S = {problem.s};'
    f' error {first}\n'
  )
  header = ['learner', *(f'{x} s' for x in _BUDGETS.value), 'ms an update']
  print('| ' + ' | '.join(header) + ' |')
  print('|' + '---|' * len(header))
  for name, row in results.items():
    # A look may come late, where one update takes longer than the budget.
    looks = zip(row, map(float, _BUDGETS.value), strict=True)
    cells = [
      f'{x.error:.4f}' if x and x.seconds < 1.5 * budget else ''
      for x, budget in looks
    ]
    cells.append(f'{1e3 * row[-1].seconds / row[-1].updates:.1f}')
    print(f'| {name} | ' + ' | '.join(cells) + ' |')


def draw(problems: list[Problem], tables, path: str) -> None:
  import matplotlib

  matplotlib.use('agg')
  from matplotlib import pyplot as plt

  figure, axes = plt.subplots(1, len(problems), figsize=(9, 3.6))
  for axis, problem, results in zip(axes, problems, tables, strict=True):
    for name, row in results.items():
      looks = [x for x in row if x]
      style = '-o' if name in OURS else '--s'
      axis.plot(
        [x.seconds for x in looks],
        [x.error for x in looks],
        style,
        ms=4,
        label=name,
      )
    if problem.baseline is not None:
      axis.axhline(problem.baseline, color='grey', lw=1, label='planted')
    axis.set(
      xscale='log',
      yscale='log',
      xlabel='seconds of learning',
      title=f'{problem.name}: K = {problem.k}, S = {problem.s}',
    )
    axis.xaxis.set_major_formatter('{x:g}')
    axis.yaxis.set_major_formatter('{x:g}')
    axis.yaxis.set_minor_formatter('{x:g}')
  axes[0].set_ylabel('held-out |x − Dc|² / |x|²')
  axes[-1].legend(fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=120)


def main(_) -> None:
  found = problems()
  tables = [measure(problem) for problem in found]
  print(
    f'{jax.devices()[0].device_kind}, {CORES} cores, batches of {_BATCH.value}'
  )
  for problem, results in zip(found, tables, strict=True):
    print_table(problem, results)
  if _PLOT.value:
    draw(found, tables, _PLOT.value)


if __name__ == '__main__':
  app.run(main)
