"""Compares the codes of an accelerator with those of the CPU.

  python benchmarks/same_codes.py

Random signals, atoms and codes, float32. `batch_omp` finds supports, and
`nearest_code` indices, once on the default device and once on the CPU, in a
process of its own. At least 99.9 % of the signals must have the same. Of the
others, the first 50 are looked at in float64: is each choice of the device the
best one, up to the rounding of float32? Then it is a tie. Prints a table in
Markdown; the exit code is 1 where a device falls short.
"""

import os
import subprocess
import sys
import tempfile

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from problems import Problem, is_tie, random_problem
from record import Record

from lasers_jax.coding import batch_omp, nearest_code

_SHAPES = flags.DEFINE_list(
  'shapes',
  '16384x16x512x5,16384x64x1024x8,4096x256x4096x16,1024x64x16384x4',
  'What to code: NxDxKxS, signals x width x atoms x sparsity.',
)
_JSON = flags.DEFINE_string('json', '', 'File of the results.')
_SAVE = flags.DEFINE_string('save', '', 'For internal use: where codes go.')

LEAST = 0.999  # of the codes of a device
LOOKED = 50  # signals whose codes differ
Codes = dict[str, np.ndarray]


def code(problem: Problem) -> Codes:
  """Codes on the default device: supports [N, S], indices [N]."""
  signals, atoms = jnp.asarray(problem.signals), jnp.asarray(problem.atoms)
  sparse = batch_omp(signals, atoms, problem.s)
  indices = nearest_code(signals, codebook(problem))
  return {'omp': np.asarray(sparse.atoms), 'vq': np.asarray(indices)}


def codebook(problem: Problem) -> np.ndarray:
  """Returns codes [K, D] of the lengths of signals."""
  return np.sqrt(np.float32(len(problem.atoms))) * problem.atoms.T


def code_on_cpu(shape: str) -> Codes:
  """Codes in another process: the device decides how a program is built."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'codes.npz')
    words = [sys.executable, __file__, f'--shapes={shape}', f'--save={path}']
    subprocess.run(
      words, env={**os.environ, 'JAX_PLATFORMS': 'cpu'}, check=True
    )
    with np.load(path) as found:
      return dict(found)


def nearest_tie(signal: np.ndarray, codes: np.ndarray, index: int) -> bool:
  """Returns whether no code is nearer, up to float32's rounding."""
  distances = np.sum((np.float64(codes) - np.float64(signal)) ** 2, axis=1)
  slack = 1e-6 * (distances.min() + np.sum(np.float64(signal) ** 2))
  return bool(distances[index] <= distances.min() + slack)


def compare(problem: Problem, found: Codes, expected: Codes) -> dict:
  """Returns for each method the share of equal codes, and the ties."""
  signals, atoms, _ = problem
  same = {
    'omp': (np.sort(found['omp']) == np.sort(expected['omp'])).all(axis=1),
    'vq': found['vq'] == expected['vq'],
  }
  ties = {
    'omp': lambda i: is_tie(signals[i], atoms, found['omp'][i], 'omp'),
    'vq': lambda i: nearest_tie(signals[i], codebook(problem), found['vq'][i]),
  }
  fields = {}
  for name, equal in same.items():
    differ = np.flatnonzero(~equal)
    looked = differ[:LOOKED]
    fields[name] = {
      'same': float(equal.mean()),
      'differ': len(differ),
      'looked_at': len(looked),
      'ties': sum(map(ties[name], looked)),
    }
  return fields


def main(_) -> None:
  if _SAVE.value:
    (shape,) = _SHAPES.value
    codes = code(random_problem(*map(int, shape.split('x'))))
    return np.savez(_SAVE.value, **codes)
  record = Record(_JSON.value, __doc__, least=LEAST)
  for shape in _SHAPES.value:
    if shape not in record:
      problem = random_problem(*map(int, shape.split('x')))
      fields = compare(problem, code(problem), code_on_cpu(shape))
      record.add(shape, **fields)
  record.finish()
  print(
    '| shape | method | same | ties of those that differ |\n|---|---|---|---|'
  )
  rows = [
    (s, m, record.rows[s][m]) for s in _SHAPES.value for m in ('omp', 'vq')
  ]
  for shape, method, x in rows:
    ties = f'{x["ties"]} of {x["looked_at"]}' if x['looked_at'] else ''
    print(f'| {shape} | {method} | {x["same"]:.3%} | {ties} |')
  if any(x['same'] < LEAST for _, _, x in rows):
    sys.exit(1)


if __name__ == '__main__':
  app.run(main)
