"""The pieces of accelerator.sh run, in miniature and without Grain or tfds."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent
PIECES = ['omp', 'step', 'bottlenecks', 'decoders', 'codes', 'train']
# As if they were not installed.
HIDING = """
import importlib.machinery

HIDDEN = 'grain', 'tensorflow', 'tensorflow_datasets', 'array_record'
find = importlib.machinery.PathFinder.find_spec

def find_others(name, path=None, target=None):
  return None if name.split('.')[0] in HIDDEN else find(name, path, target)

importlib.machinery.PathFinder.find_spec = find_others
import tests.lowering
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Runs pieces where no library of data can be imported."""
  folder = tmp_path_factory.mktemp('accelerator')
  (folder / 'sitecustomize.py').write_text(HIDING)
  draw = np.random.default_rng(0).integers
  splits = {
    name: draw(0, 256, (n, 32, 32, 3), np.uint8)
    for name, n in (('train', 16), ('test', 4))
  }
  np.savez(folder / 'images.npz', **splits)
  changes = {
    'QUICK': '1',
    'OUT': str(folder / 'out'),
    'IMAGES': str(folder / 'images.npz'),
    'PYTHON': sys.executable,
    'PYTHONPATH': str(folder),
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_backend_optimization_level=0',  # compiles faster
    'COMMIT': 'abc1234',
  }

  def run(*pieces):
    done = subprocess.run(
      [ROOT / 'benchmarks' / 'accelerator.sh', *pieces],
      env={**os.environ, **changes},
      capture_output=True,
      text=True,
      timeout=120,
    )
    return done, folder / 'out'

  return run


def test_each_piece_writes_what_it_measured_and_on_what(run):
  done, out = run()
  assert done.returncode == 0, done.stderr[-3000:]
  for piece in PIECES:
    found = json.loads((out / f'{piece}.json').read_text())
    assert found['complete']
    assert found['rows']
    assert found['device'].startswith('cpu (cpu), driver ')
    assert 'commit abc1234' in found['versions']['lasers_jax']
    assert f'{piece}.json' in found['command']
    assert found['protocol']['program']
  codes = json.loads((out / 'codes.json').read_text())['rows']
  assert all(row[x]['same'] == 1 for row in codes for x in ('omp', 'vq'))

  again, _ = run()
  assert again.returncode == 0
  assert again.stderr.count('is complete') == len(PIECES)
  assert 'measuring' not in again.stderr


def test_a_file_that_is_not_complete_goes_on_after_its_rows(run):
  _, out = run('codes')  # which takes least time
  path = out / 'codes.json'
  found = json.loads(path.read_text())
  found['rows'][0]['omp'] = 'kept'
  path.write_text(json.dumps({**found, 'complete': False}))
  done, _ = run('codes')
  assert 'measuring codes' in done.stderr
  found = json.loads(path.read_text())
  assert found['complete']
  assert found['rows'][0]['omp'] == 'kept'


def test_another_piece_is_an_error(run):
  done, _ = run('sampling')
  assert done.returncode == 2
  assert 'there is no piece sampling' in done.stderr
