import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso

from lasers_jax import coding
from lasers_jax.coding.ista import (
  dct_dictionary,
  ista,
  largest_eigenvalue,
  soft_threshold,
)

N, D, K = 12, 6, 15
PENALTY = 0.4


def normal(shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope='module')
def problem():
  dictionary = coding.normalize_atoms(jnp.asarray(normal((D, K), 1), 'f4'))
  signals = jnp.asarray(2 * normal((N, D)), 'f4')
  return signals, dictionary, largest_eigenvalue(dictionary)


def objective(signals, dictionary, s):
  signals, dictionary = np.asarray(signals, 'f8'), np.asarray(dictionary, 'f8')
  s = np.asarray(s, 'f8')
  fit = ((signals - s @ dictionary.T) ** 2).sum(axis=1) / 2
  return fit + PENALTY * np.abs(s).sum(axis=1)


def steps_in_64(signals, dictionary, c, penalty, steps):
  s = np.zeros((len(signals), dictionary.shape[1]))
  for _ in range(steps):
    s = s + (signals - s @ dictionary.T) @ dictionary / c
    s = np.sign(s) * np.maximum(np.abs(s) - penalty / c, 0)
  return s


def test_soft_threshold():
  x = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 3.0])
  np.testing.assert_array_equal(soft_threshold(x, 1.0), [-2, 0, 0, 0, 0, 2])
  slopes = jax.vmap(jax.grad(soft_threshold), (0, None))(x, 0.9)
  np.testing.assert_array_equal(slopes, [1, 1, 0, 0, 0, 1])


@pytest.mark.parametrize('steps', [1, 7])
def test_steps_are_those_of_the_equation(problem, steps):
  signals, dictionary, c = problem
  found = ista(signals, dictionary, c, PENALTY, steps)
  assert found.shape == (N, K)
  expected = steps_in_64(
    *(np.asarray(x, 'f8') for x in problem), PENALTY, steps
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_step_goes_up(problem):
  values = [
    objective(*problem[:2], ista(*problem, PENALTY, steps))
    for steps in (1, 2, 7, 30)
  ]
  assert np.all(np.diff(values, axis=0) <= 1e-6)
  assert np.all(values[0] < objective(*problem[:2], np.zeros((N, K))))


def test_steps_end_at_the_lasso(problem):
  signals, dictionary, c = problem
  found = ista(signals, dictionary, c, PENALTY, 1000)
  lasso = Lasso(PENALTY / D, fit_intercept=False, tol=1e-8)
  x, y = np.asarray(dictionary, 'f8'), np.asarray(signals, 'f8').T
  best = lasso.fit(x, y).coef_
  np.testing.assert_allclose(
    objective(signals, dictionary, found),
    objective(signals, dictionary, best),
    rtol=1e-4,
  )


def test_an_orthonormal_dictionary_needs_one_step(problem):
  signals, basis = problem[0], dct_dictionary(D, D)
  expected = soft_threshold(signals @ basis, PENALTY)
  for steps in (1, 5):
    found = ista(signals, basis, 1.0, PENALTY, steps)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_steps_stay_bounded_at_half_the_eigenvalue(problem):
  signals, dictionary, c = problem
  found = ista(signals, dictionary, c / 2, PENALTY, 200)
  start = objective(signals, dictionary, np.zeros((N, K)))
  assert np.all(objective(signals, dictionary, found) <= 1.001 * start)
  # And not below.
  assert np.abs(ista(signals, dictionary, c / 3, PENALTY, 30)).max() > 1e6


def test_the_gradient_is_the_slope(problem):
  pull, steps = normal((N, K), 2), 5

  @jax.jit
  def total(arrays):
    return jnp.sum(ista(*arrays, PENALTY, steps) * pull.astype('f4'))

  def total_64(arrays):
    return np.sum(steps_in_64(*arrays, PENALTY, steps) * pull)

  gradients = jax.grad(total)(problem)
  exact = [np.asarray(x, 'f8') for x in problem]
  for i, gradient in enumerate(gradients):
    direction = normal(exact[i].shape, 3)
    ends = []
    for step in (1e-6, -1e-6):
      moved = list(exact)
      moved[i] = exact[i] + step * direction
      ends.append(total_64(moved))
    expected = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(
      np.sum(gradient * direction), expected, rtol=2e-3, atol=1e-3
    )


def test_the_gradient_to_the_penalty_is_the_slope(problem):
  pull = normal((N, K), 2)

  def total(penalty):
    return jnp.sum(ista(*problem, penalty, 5) * pull.astype('f4'))

  exact = [np.asarray(x, 'f8') for x in problem]
  ends = [
    np.sum(steps_in_64(*exact, PENALTY + step, 5) * pull)
    for step in (1e-6, -1e-6)
  ]
  expected = (ends[0] - ends[1]) / 2e-6
  np.testing.assert_allclose(jax.grad(total)(PENALTY), expected, rtol=2e-3)


def test_the_gradient_does_not_store_the_codes_of_all_steps():
  n, d, k, steps = 8192, 8, 64, 64
  shapes = [jax.ShapeDtypeStruct(x, 'f4') for x in ((n, d), (d, k), ())]

  def total(*arrays):
    return jnp.sum(ista(*arrays, PENALTY, steps) ** 2)

  compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(*shapes).compile()
  stored = 4 * n * k * steps
  assert compiled.memory_analysis().temp_size_in_bytes < stored / 2


def test_zero_is_coded_as_zero(problem):
  _, dictionary, c = problem
  zeros = jnp.zeros((3, D))
  np.testing.assert_array_equal(ista(zeros, dictionary, c, PENALTY, 3), 0)


def test_a_site_has_its_code_whatever_comes_along(problem):
  signals, dictionary, c = problem
  many = jnp.asarray(normal((3000, D), 5), 'f4').at[7:19].set(signals)
  together = ista(many, dictionary, c, PENALTY, 5)[7:19]
  alone = ista(signals, dictionary, c, PENALTY, 5)
  np.testing.assert_array_equal(together, alone)


def test_largest_eigenvalue(problem):
  _, dictionary, c = problem
  norm = np.linalg.norm(np.asarray(dictionary, 'f8'), 2)
  np.testing.assert_allclose(c, norm**2, rtol=1e-5)
  assert not np.any(jax.grad(largest_eigenvalue)(dictionary))


@pytest.mark.parametrize('d, k', [(8, 8), (8, 32), (16, 512)])
def test_dct_dictionary(d, k):
  atoms = np.asarray(dct_dictionary(d, k), 'f8')
  np.testing.assert_allclose(np.linalg.norm(atoms, axis=0), 1, rtol=1e-5)
  np.testing.assert_allclose(atoms[:, 0], d**-0.5, rtol=1e-5)
  assert np.linalg.matrix_rank(atoms, tol=1e-3) == d
  if k == d:
    np.testing.assert_allclose(atoms.T @ atoms, np.eye(d), atol=1e-6)
