"""One device and eight find the same codes."""

import jax
import numpy as np
import pytest

from lasers_jax.coding import batch_omp
from tests.coding import omp_reference as reference

# (N, D, K, S), see omp_options_test.py.
FORMS = {'Gram': (64, 16, 48, 3), 'residual': (64, 16, 528, 2)}
OPTIONS = {
  'ols': {'selection': 'ols'},
  'fast': {'precision': 'bfloat16'},
  'residual_norm': {'residual_norm': 2.5},
}
SPLITS = {'K': (1, 8), 'N and K': (2, 4)}


def place(signals, atoms, split):
  mesh = jax.make_mesh(
    SPLITS[split],
    ('data', 'model'),
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
  )

  def put(x, *axes):
    return jax.device_put(x, jax.NamedSharding(mesh, jax.P(*axes)))

  return put(signals, 'data'), put(atoms, None, 'model')


def assert_close(found, expected):
  np.testing.assert_array_equal(found.atoms, expected.atoms)
  np.testing.assert_allclose(
    found.coefficients, expected.coefficients, atol=1e-5
  )


@pytest.mark.parametrize('form', FORMS)
def test_eight_devices_find_the_codes_of_one(form):
  n, d, k, s = FORMS[form]
  problem = reference.random_problem(0, n, d, k)
  found = batch_omp(*place(*problem, 'N and K'), s)
  assert len(found.atoms.sharding.device_set) == 8
  assert_close(found, batch_omp(*problem, s))


@pytest.mark.parametrize('mode', OPTIONS)
def test_so_they_do_with_options(mode):
  n, d, k, s = FORMS['Gram']
  problem = reference.random_problem(1, n, d, k)
  found = batch_omp(*place(*problem, 'N and K'), s, **OPTIONS[mode])
  expected = batch_omp(*problem, s, **OPTIONS[mode])
  assert_close(found, expected)
  if mode == 'residual_norm':
    np.testing.assert_array_equal(found.count, expected.count)


def test_ties_between_the_shards_of_k_go_to_the_lowest_index():
  n, d, k, s = FORMS['Gram']
  atoms = np.tile(np.eye(d, dtype=np.float32), (1, k // d))
  code = batch_omp(*place(np.ones((n, d), np.float32), atoms, 'K'), s)
  np.testing.assert_array_equal(code.atoms, [range(s)] * n)


def test_gradients_are_the_same():
  n, d, k, s = FORMS['Gram']
  problem = reference.random_problem(3, n, d, k)

  def loss(signals, atoms):
    return (batch_omp(signals, atoms, s).coefficients ** 2).sum()

  gradient = jax.jit(jax.grad(loss, (0, 1)))
  found, expected = gradient(*place(*problem, 'N and K')), gradient(*problem)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
