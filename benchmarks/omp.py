"""Times `coding.batch_omp` beside other sparse coders, and checks its codes.

  python benchmarks/omp.py

Random signals and atoms, float32. One interleaved run a shape; a ratio is the
median of the ratios within a round, since other work on the machine slows all
of a round alike. The time includes the correlations and, for every method that
needs one, the Gram matrix; compilation is apart. The process keeps the memory
that it frees, as the programs do. A method that has run for --patience seconds
at a shape sits out its further rounds.

Peers take part where they are installed (`pip install spams-bin scikit-learn
orthogonal-matching-pursuit-gpu`), with all cores: SPAMS, which selects as
`ols` does; scikit-learn, on some of the signals and scaled; the PyTorch
package, on 4096 signals at most and scaled. On an accelerator only the last
one does, on the same card, and a plain OMP of PyTorch (torch_step.py).

The lower bound is the work that every such method does, by XLA. On a CPU: the
correlations, one pass of maxima over them, and the Gram matrix where K is
below (S - 1) N. On an accelerator: the traffic of the correlations, written
and read once a step, by a kernel that copies. Prints tables in Markdown; with
--json also to a file, and shapes that it has are not measured again.
"""

import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from problems import Problem, is_tie, random_problem
from record import Record, synchronize_torch, torch_device

from lasers_jax.coding import batch_omp, reconstruct
from lasers_jax.core.memory import keep_freed_memory

_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds of the interleaved run.')
_PATIENCE = flags.DEFINE_float('patience', 12, 'Seconds of a method, at most.')
_SHAPES = flags.DEFINE_list(
  'shapes',
  '16384x16x128x4,16384x64x512x4,16384x64x1024x8,4096x256x2048x8,'
  '4096x256x4096x16,2048x256x2048x2,1024x64x16384x4',
  'What to code: NxDxKxS, signals x width x atoms x sparsity.',
)
_JSON = flags.DEFINE_string('json', '', 'File of the results.')

CORES = len(os.sched_getaffinity(0))
CHECKED = 128  # signals whose supports are compared with scikit-learn's
OURS = {
  'omp': {},
  'ols': {'selection': 'ols'},
  'fast': {'precision': 'bfloat16'},
}
SPAMS = f'SPAMS, {CORES} threads'
SINGLE = 'SPAMS, 1 thread'
SKLEARN, TORCH, BOUND = 'scikit-learn', 'PyTorch package', 'lower bound'
PLAIN = 'plain PyTorch'


class Method(NamedTuple):
  """Takes the time of `once()` plus `scale` times the time of `run()`."""

  run: Callable[[], Any]
  scale: float = 1.0
  once: Callable[[], Any] | None = None


def make_methods(problem: Problem) -> dict[str, Method]:
  methods = {name: ours(problem, name) for name in OURS}
  methods[BOUND] = lower_bound(problem)
  if jax.default_backend() == 'cpu':
    if importlib.util.find_spec('spams'):
      methods[SINGLE] = Method(lambda: spams_support(problem, 1))
      methods[SPAMS] = Method(lambda: spams_support(problem, CORES))
    if importlib.util.find_spec('sklearn'):
      methods[SKLEARN] = scikit_learn(problem)
  if importlib.util.find_spec('orthogonal_matching_pursuit_gpu'):
    methods[TORCH] = torch_package(problem)
  if jax.default_backend() == 'gpu' and importlib.util.find_spec('torch'):
    methods[PLAIN] = plain_torch(problem)
  return methods


def ours(problem: Problem, name: str) -> Method:
  signals, atoms = jnp.asarray(problem.signals), jnp.asarray(problem.atoms)

  def run():
    code = batch_omp(signals, atoms, problem.s, **OURS[name])
    return jax.block_until_ready(code)

  return Method(run)


def lower_bound(problem: Problem) -> Method:
  signals, atoms = jnp.asarray(problem.signals), jnp.asarray(problem.atoms)
  n, k = signals.shape[0], atoms.shape[1]
  if jax.default_backend() == 'cpu':
    function = jax.jit(lambda x, y: jnp.max(jnp.abs(x @ y), axis=1))
    calls = [(signals, atoms)]
    if k < (problem.s - 1) * n:
      calls.append((atoms.T, atoms))
  else:
    function = jax.jit(lambda x: x + 1)
    calls = [(jnp.zeros((problem.s * n, k)),)]
  return Method(lambda: jax.block_until_ready([function(*c) for c in calls]))


def spams_support(problem: Problem, threads: int) -> np.ndarray:
  """Returns the atoms that SPAMS chooses: [N, S], sorted."""
  import spams

  signals, atoms, s = problem
  # Without eps the float32 wheel reads an undefined threshold: in about half
  # of all processes its codes are then empty, at twice the speed.
  code = spams.omp(
    signals.T, np.asfortranarray(atoms), s, eps=0.0, numThreads=threads
  )
  assert code.nnz == len(signals) * s, 'SPAMS stopped before S atoms'
  return np.sort(code.indices.reshape(len(signals), s))


def scikit_learn(problem: Problem) -> Method:
  from sklearn.linear_model import orthogonal_mp_gram

  signals, atoms, s = problem
  # It copies the Gram matrix for every signal, so that K^2 sets its speed.
  part = min(len(signals), 2**29 // atoms.shape[1] ** 2)
  gram = np.asfortranarray(atoms.T @ atoms)

  def run():
    products = atoms.T @ signals[:part].T
    return orthogonal_mp_gram(gram, products, n_nonzero_coefs=s)

  return Method(run, len(signals) / part, once=lambda: atoms.T @ atoms)


def torch_package(problem: Problem) -> Method:
  import torch
  from orthogonal_matching_pursuit_gpu import run_omp

  device = torch_device()
  torch.set_num_threads(CORES)
  part = min(len(problem.signals), 4096)
  signals = torch.from_numpy(problem.signals[:part]).to(device)
  atoms = torch.from_numpy(problem.atoms).to(device)

  def run():
    run_omp(atoms, signals, problem.s, normalize=False, fit_intercept=False)
    synchronize_torch()

  return Method(run, len(problem.signals) / part)


def plain_torch(problem: Problem) -> Method:
  import torch
  import torch_step

  device = torch_device()
  signals = torch.from_numpy(problem.signals).to(device)
  atoms = torch.from_numpy(problem.atoms).to(device)

  def run():
    torch_step.sparse_code(signals, atoms, problem.s)
    synchronize_torch()

  return Method(run)


def seconds(function: Callable[[], Any], minimum: float = 0.1) -> float:
  """Times calls for `minimum` seconds, at least one, and returns the mean."""
  calls, start = 0, time.perf_counter()
  while not calls or time.perf_counter() - start < minimum:
    function()
    calls += 1
  return (time.perf_counter() - start) / calls


def measure(methods: dict[str, Method], rounds: int):
  """Times each method once a round, after a round that compiles.

  Returns:
    The seconds of each method's rounds, and of its first call.
  """
  first = {name: seconds(method.run, 0) for name, method in methods.items()}
  times = {name: [] for name in methods}
  spent = dict.fromkeys(methods, 0.0)
  for _ in range(rounds):
    for name, method in methods.items():
      if spent[name] < _PATIENCE.value:
        start = time.perf_counter()
        time.sleep(0.02)  # threads of the one before spin for a while
        method.run()  # caches forget while others run
        once = seconds(method.once) if method.once else 0.0
        times[name].append(once + method.scale * seconds(method.run))
        spent[name] += time.perf_counter() - start
  return times, first


def ratio(times, name: str, base: str) -> float:
  """Returns the median over common rounds of `name`'s time over `base`'s."""
  return statistics.median(
    a / b for a, b in zip(times[name], times[base], strict=False)
  )


def scikit_learn_support(problem: Problem) -> np.ndarray:
  """Returns the atoms of the first signals in float64: [CHECKED, S]."""
  from sklearn.linear_model import orthogonal_mp

  signals = problem.signals[:CHECKED].astype(np.float64)
  dense = orthogonal_mp(
    problem.atoms.astype(np.float64), signals.T, n_nonzero_coefs=problem.s
  )
  return np.nonzero(dense.T)[1].reshape(len(signals), problem.s)


def agreement(problem: Problem, found, reference, selection: str) -> str:
  """Returns how many of the supports are equal, and how many are ties."""
  signals, atoms, _ = problem
  n = len(reference)
  differ = np.nonzero((np.sort(found[:n]) != reference).any(axis=1))[0]
  looked = differ[:20]  # more are no ties
  ties = sum(is_tie(signals[i], atoms, found[i], selection) for i in looked)
  note = f', {ties} of {len(looked)} others tie' if len(looked) else ''
  return f'{n - len(differ)} of {n}{note}'


def check(problem: Problem) -> list[str]:
  """Compares our codes with the peers' and the fast ones with the exact."""
  codes = {name: ours(problem, name).run() for name in OURS}
  atoms = {name: np.asarray(code.atoms) for name, code in codes.items()}
  row = ['', '']
  if importlib.util.find_spec('sklearn'):
    reference = scikit_learn_support(problem)
    row[0] = agreement(problem, atoms['omp'], reference, 'omp')
  if importlib.util.find_spec('spams') and jax.default_backend() == 'cpu':
    reference = spams_support(problem, CORES)
    row[1] = agreement(problem, atoms['ols'], reference, 'ols')
  same = (np.sort(atoms['fast']) == np.sort(atoms['omp'])).all(axis=1).mean()
  errors = {name: relative_error(problem, code) for name, code in codes.items()}
  changes = [errors[name] / errors['omp'] - 1 for name in ('fast', 'ols')]
  return [
    *row,
    f'{same:.1%}',
    f'{errors["omp"]:.4f}',
    *(f'{change:+.2%}' for change in changes),
  ]


def relative_error(problem: Problem, code) -> float:
  """Returns the mean over the signals of |x - Dc|^2 / |x|^2."""
  residuals = problem.signals - np.asarray(reconstruct(code, problem.atoms))
  return float(np.mean((residuals**2).sum(1) / (problem.signals**2).sum(1)))


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
  print(f'\n{title}\n')
  for row in [header, ['---'] * len(header), *rows]:
    print('| ' + ' | '.join(row) + ' |')


def bandwidth(shape: str, bound: float) -> float | None:
  """Returns the bytes a second of the copy that the bound is, if it is one."""
  n, _, k, s = map(int, shape.split('x'))
  return None if jax.default_backend() == 'cpu' else 8 * s * n * k / bound


def measure_shapes() -> dict[str, dict]:
  """Measures what the file of results lacks, and returns the row of a shape."""
  record = Record(_JSON.value, __doc__, rounds=_ROUNDS.value)
  for shape in _SHAPES.value:
    if shape not in record:
      print(f'coding {shape}', file=sys.stderr)
      problem = random_problem(*map(int, shape.split('x')))
      rounds, once = measure(make_methods(problem), _ROUNDS.value)
      record.add(
        shape,
        seconds=rounds,
        first_call=once,
        checks=check(problem),
        bandwidth=bandwidth(shape, statistics.median(rounds[BOUND])),
      )
  record.finish()
  return {shape: record.rows[shape] for shape in _SHAPES.value}


def print_speeds(times: dict[str, dict], rows) -> None:
  """Prints milliseconds, and the ratios to the peers and to the bound."""
  names = list(next(iter(times.values())))

  def medians(shape: str) -> list[str]:
    ms = [1e3 * statistics.median(times[shape][name]) for name in names]
    return [f'{x:.1f}' if x < 100 else f'{x:.0f}' for x in ms]

  pairs = [('omp', x) for x in (SPAMS, SINGLE, SKLEARN, TORCH, PLAIN)]
  pairs += [('ols', SPAMS), ('fast', SPAMS), ('fast', TORCH), ('fast', PLAIN)]
  pairs = [(us, peer) for us, peer in pairs if peer in names]

  def ratios(shape: str) -> list[str]:
    faster = [ratio(times[shape], peer, us) for us, peer in pairs]
    bounds = [ratio(times[shape], us, BOUND) for us in OURS]
    return [f'{x:.2f}' if x < 10 else f'{x:.0f}' for x in faster + bounds]

  print_table('Milliseconds (medians)', ['shape', *names], rows(medians))
  print_table(
    'How many times faster, and how many times the lower bound',
    [
      'shape',
      *(f'{us} : {peer}' for us, peer in pairs),
      *(f'{us} / bound' for us in OURS),
    ],
    rows(ratios),
  )


def main(_) -> None:
  keep_freed_memory()
  found = measure_shapes()
  print(
    f'{jax.devices()[0].device_kind}, {CORES} cores, '
    f'{_ROUNDS.value} rounds; shapes are N×D×K×S'
  )

  def rows(cells) -> list[list[str]]:
    return [[shape.replace('x', '×'), *cells(shape)] for shape in found]

  print_speeds({shape: row['seconds'] for shape, row in found.items()}, rows)
  print_table(
    'Supports, and the error |x - Dc|²/|x|²',
    [
      'shape',
      'omp = scikit-learn',
      'ols = SPAMS',
      'fast = omp',
      'error of omp',
      'fast',
      'ols',
    ],
    rows(lambda shape: found[shape]['checks']),
  )
  print_table(
    'Seconds of the first call, which compiles',
    ['shape', *OURS],
    rows(lambda x: [f'{found[x]["first_call"][name]:.1f}' for name in OURS]),
  )


if __name__ == '__main__':
  app.run(main)
