"""A program has the form of the device it is compiled for, wherever traced."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax import coding
from lasers_jax.coding import search
from tests.coding.omp_reference import random_problem

ROOT = pathlib.Path(__file__).parent.parent.parent
LIBRARY = sorted((ROOT / 'lasers_jax').rglob('*.py'))
# More sites than a CPU takes at once, (S - 1) K as for the Gram matrix there.
N, D, K, S = 3000, 16, 48, 3
PLATFORMS = 'cpu', 'cuda', 'tpu'


def omp(signals, atoms):
  return coding.batch_omp(signals, atoms, S)


def nearest(signals, atoms):
  return coding.nearest_code(signals, atoms.T)


def shapes():
  return (
    jax.ShapeDtypeStruct((N, D), jnp.float32),
    jax.ShapeDtypeStruct((D, K), jnp.float32),
  )


def lowered(function, platform, *arguments):
  traced = jax.jit(function).trace(*(arguments or shapes()))
  return traced.lower(lowering_platforms=(platform,)).as_text()


def test_nothing_asks_for_the_backend_of_the_host():
  for path in LIBRARY:
    assert 'default_backend' not in path.read_text(), path


@pytest.mark.parametrize('function', [omp, nearest])
@pytest.mark.parametrize('platform', PLATFORMS)
def test_only_a_cpu_takes_sites_in_blocks(platform, function):
  text = lowered(function, platform)
  whole = f'tensor<{N}x{K}xf32>' in text
  blocks = f'tensor<2048x{K}xf32>' in text
  assert (whole, blocks) == (
    (False, True) if platform == 'cpu' else (True, False)
  )


@pytest.mark.parametrize('platform', PLATFORMS)
def test_only_a_cpu_computes_the_gram_matrix(platform):
  assert (f'tensor<{K}x{K}xf32>' in lowered(omp, platform)) == (
    platform == 'cpu'
  )


def test_rows_of_the_gram_matrix_are_no_pages_apart():
  signals = jax.ShapeDtypeStruct((40, D), jnp.float32)
  atoms = jax.ShapeDtypeStruct((D, 1024), jnp.float32)
  text = lowered(omp, 'cpu', signals, atoms)
  assert 'tensor<1024x1040xf32>' in text
  assert 'tensor<1024x1024xf32>' not in text


def test_each_step_of_an_accelerator_fetches_the_rows_of_one_atom():
  # Where a mesh splits K, each of these gathers is a transfer.
  fetches = []
  for s in (2, 3, 4):
    text = lowered(lambda x, y, s=s: coding.batch_omp(x, y, s), 'tpu')
    rows = rf'"stablehlo.gather".*-> tensor<{N}x{D}xf32>'
    fetches.append(len(re.findall(rows, text)))
  np.testing.assert_array_equal(np.diff(fetches), [1, 1])


@pytest.mark.parametrize('platform', PLATFORMS)
def test_only_a_cpu_searches_by_groups(platform):
  scores = jax.ShapeDtypeStruct((8, K), jnp.float32)
  for function in (search.largest, search.largest_two):
    text = lowered(function, platform, scores)
    assert (f'tensor<8x16x{K // 16}xf32>' in text) == (platform == 'cpu')


@pytest.mark.parametrize('platform', PLATFORMS)
def test_only_a_cpu_multiplies_stacks(platform):
  text = lowered(search.linear, platform)
  assert 'stablehlo.dot_general' in text
  assert ('batching_dims' in text) == (platform == 'cpu')


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize('platform', PLATFORMS)
def test_a_mesh_may_split_the_sites_of_every_block(
  platform, devices, monkeypatch
):
  monkeypatch.setattr(jax, 'device_count', lambda: devices)
  sites = jax.ShapeDtypeStruct((10, 3), jnp.float32)
  text = lowered(lambda x: search.split_blocks(x, 4), platform, sites)
  neighbours = platform == 'cpu' and devices == 1
  assert ('stablehlo.transpose' in text) != neighbours


def test_no_choice_of_a_platform_is_left_in_a_compiled_program():
  program = jax.jit(nearest).lower(*shapes()).compile().as_text()
  assert 'while' in program
  assert 'conditional' not in program


def test_one_export_serves_several_platforms():
  signals, atoms = random_problem(0, 40, D, K)
  exported = jax.export.export(jax.jit(omp), platforms=('cpu', 'tpu'))
  found = exported(signals, atoms).call(signals, atoms)
  jax.tree.map(np.testing.assert_array_equal, found, omp(signals, atoms))


@pytest.mark.parametrize('k', [1, 7, 48, 528])
def test_every_form_finds_the_lowest_index_of_the_largest(k):
  rng = np.random.default_rng(k)
  scores = rng.integers(-3, 4, (60, k)).astype(np.float32)
  scores[0], scores[1, : k // 2] = -np.inf, -np.inf
  for find in (search._largest_by_groups, search._largest_at_once):
    found = find(jnp.asarray(scores))
    np.testing.assert_array_equal(found, scores.argmax(axis=1))
    nans = find(jnp.full((2, k), jnp.nan))
    assert ((nans >= 0) & (nans < k)).all()


@pytest.mark.parametrize('k', [7, 32, 48, 528])
def test_both_forms_find_the_same_two(k):
  scores = np.random.default_rng(k).integers(0, 9, (60, k))
  scores = jnp.asarray(scores, jnp.float32)
  jax.tree.map(
    np.testing.assert_array_equal,
    search._largest_two_by_groups(scores),
    search._largest_two_at_once(scores),
  )


# On other devices, by processes of their own: these tests have CPUs alone.


def run(name: str, **environment: str):
  """Runs a script of this folder, and returns what it prints."""
  inherited = {
    name: value
    for name, value in os.environ.items()
    if name not in ('JAX_PLATFORMS', 'XLA_FLAGS')
    and not name.startswith('JAX_DISABLE')
  }
  done = subprocess.run(
    [sys.executable, f'{ROOT}/tests/coding/{name}.py'],
    env={**inherited, 'PYTHONPATH': str(ROOT), **environment},
    capture_output=True,
    text=True,
    check=False,
  )
  assert not done.returncode, done.stderr[-2000:]
  return done.stdout


@pytest.mark.slow
def test_searches_of_a_tpu_keep_their_maxima_in_float32():
  pytest.importorskip('libtpu')
  kinds = [line.split('[')[0] for line in run('tpu_searches').splitlines()]
  assert kinds.count('(f32') >= 10
  assert set(kinds) <= {'(f32', '(pred'}


@pytest.mark.slow
def test_an_accelerator_finds_the_supports_of_float64():
  shares = [line.split() for line in run('supports').splitlines()]
  if not shares:
    pytest.skip('no accelerator')
  for device, k, share in shares:
    assert float(share) >= 0.999, (device, k)
