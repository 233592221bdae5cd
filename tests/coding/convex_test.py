import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding.convex import convex_weights, project_simplex
from lasers_jax.coding.search import linear

N, D, K = 12, 4, 10


def normal(shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope='module')
def problem():
  """Signals and codes, in float64 and as float32."""
  signals, codes = 2 * normal((N, D)), normal((K, D), 1)
  return signals, codes, jnp.asarray(signals, 'f4'), jnp.asarray(codes, 'f4')


def projected(values):
  """By bisection for the threshold."""
  low, high = values.min(axis=-1) - 1, values.max(axis=-1)
  for _ in range(60):
    middle = (low + high) / 2
    total = np.maximum(values - middle[:, None], 0).sum(axis=-1)
    low = np.where(total > 1, middle, low)
    high = np.where(total > 1, high, middle)
  return np.maximum(values - high[:, None], 0)


def nearest(signals, codes):
  distances = ((signals[:, None] - codes[None]) ** 2).sum(axis=-1)
  return np.eye(len(codes))[distances.argmin(axis=1)]


def weights_of(signals, codes, penalty):
  """Algorithm 2 with its K×K system."""
  matrix = codes @ codes.T + penalty * np.eye(len(codes))
  right = codes @ signals.T + penalty * nearest(signals, codes).T
  return projected(np.linalg.solve(matrix, right).T)


def slope(function, x, direction, step=1e-6):
  plus, minus = function(x + step * direction), function(x - step * direction)
  return (plus - minus) / (2 * step)


# Projection


@pytest.mark.parametrize('scale', [0.1, 1, 30])
@pytest.mark.parametrize('k', [1, 2, 10])
def test_projection_is_the_nearest_point(scale, k):
  values = scale * normal((50, k))
  found = np.asarray(project_simplex(jnp.asarray(values, 'f4')))
  assert found.min() >= 0
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(found, projected(values), atol=1e-5 * scale + 1e-6)


def test_projection_leaves_the_simplex_alone_and_no_shift_changes_it():
  inside = np.random.default_rng(0).dirichlet(np.ones(K), 20).astype('f4')
  for shift in (0, 1, -100):
    found = project_simplex(jnp.asarray(inside + shift))
    np.testing.assert_allclose(found, inside, atol=1e-6 + 1e-5 * abs(shift))


def test_projection_of_equal_and_of_huge_entries():
  even = project_simplex(jnp.full((1, 4), 7.0))
  np.testing.assert_allclose(even, np.full((1, 4), 0.25))
  huge = project_simplex(jnp.array([[1e8, -1e8, 0.0], [-3e37, 3e37, 0.0]]))
  np.testing.assert_array_equal(huge, [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize('scale', [1e-3, 1, 300])
def test_projection_of_many_entries_and_of_ties(scale):
  values = scale * normal((40, 1000))
  values[10:20] = np.round(values[10:20] / scale) * scale
  values[20:30, 3:] = values[20:30, 2:3]
  found = np.asarray(project_simplex(jnp.asarray(values, 'f4')))
  assert found.min() >= 0
  # Each of the entries is rounded.
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=3e-4)
  np.testing.assert_allclose(found, projected(values), atol=1e-6 * (1 + scale))


def test_projection_of_a_row_depends_on_it_alone():
  # Some rows take more steps for their threshold than others.
  values = normal((64, 1000)) * np.logspace(-3, 3, 64)[:, None]
  values = jnp.asarray(values, 'f4')
  together = project_simplex(values)
  for i in range(0, 64, 9):
    alone = project_simplex(jnp.zeros_like(values).at[i].set(values[i]))
    np.testing.assert_array_equal(alone[i], together[i])


def test_the_gradient_of_the_projection_is_its_slope():
  values, c, direction = normal((6, K)), normal((6, K), 1), normal((6, K), 2)
  _, pull = jax.vjp(project_simplex, jnp.asarray(values, 'f4'))
  (gradient,) = pull(jnp.asarray(c, 'f4'))
  expected = slope(lambda x: np.sum(projected(x) * c), values, direction)
  np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-3)


# Weights


@pytest.mark.parametrize('penalty', [1e-3, 0.1, 10.0])
@pytest.mark.parametrize('k', [K, D - 1])
def test_weights_are_those_of_the_large_system(problem, penalty, k):
  signals, codes, z, c = problem
  found = np.asarray(convex_weights(z, c[:k], penalty))
  assert found.min() >= 0
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
  expected = weights_of(signals, codes[:k], penalty)
  tolerance = 2e-3 if penalty < 0.1 else 1e-5
  np.testing.assert_allclose(found, expected, atol=tolerance)


def test_the_gradient_is_the_slope_through_solve_and_projection(problem):
  penalty = 0.1
  signals, codes, z, c = problem
  pull = normal((N, D), 2)

  @jax.jit
  def total(z, c):
    quantized = linear(convex_weights(z, c, penalty), c)
    return jnp.sum(quantized * pull.astype('f4'))

  def total_64(signals, codes):
    return np.sum(weights_of(signals, codes, penalty) @ codes * pull)

  to_signals, to_codes = jax.grad(total, (0, 1))(z, c)
  for direction in normal((3, N, D), 3):
    expected = slope(lambda x: total_64(x, codes), signals, direction)
    found = np.sum(to_signals * direction)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
  for direction in normal((3, K, D), 4):
    expected = slope(lambda x: total_64(signals, x), codes, direction)
    found = np.sum(to_codes * direction)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def objective(p, signals, codes, penalty):
  fit = ((signals - p @ codes) ** 2).sum(axis=1)
  return fit + penalty * ((p - nearest(signals, codes)) ** 2).sum(axis=1)


def test_the_relaxation_lies_between_the_optimum_and_the_nearest_code(problem):
  """Of equation 8, which is solved by projected gradients."""
  signals, codes, z, c = problem
  signals, z, penalty = 0.3 * signals, 0.3 * z, 0.1
  start = nearest(signals, codes)
  best, rate = start, 0.5 / (np.linalg.norm(codes, 2) ** 2 + penalty)
  for _ in range(300):
    gradient = (best @ codes - signals) @ codes.T + penalty * (best - start)
    best = projected(best - rate * gradient)
  found = np.asarray(convex_weights(z, c, penalty), np.float64)
  optimum, relaxed, hard = (
    objective(p, signals, codes, penalty) for p in (best, found, start)
  )
  assert np.all(relaxed >= optimum - 1e-5)
  assert optimum.sum() <= relaxed.sum() < hard.sum()


def test_a_large_penalty_gives_the_nearest_code(problem):
  signals, codes, z, c = problem
  found = convex_weights(z, c, 1e6)
  np.testing.assert_allclose(found, nearest(signals, codes), atol=1e-4)


def test_no_finite_input_gives_nan():
  ordinary = normal((20, 64)).astype('f4')
  signals = [ordinary, 0 * ordinary, 1e3 * ordinary]
  codes = [*signals, np.repeat(100 * ordinary[:1], 20, axis=0)]

  @jax.jit
  def gradients(z, c):
    def total(z, c):
      return jnp.sum(linear(convex_weights(z, c, 1e-3), c) ** 2)

    return convex_weights(z, c, 1e-3), jax.grad(total, (0, 1))(z, c)

  for z in signals:
    for c in codes:
      weights, slopes = gradients(z, c)
      assert all(np.isfinite(x).all() for x in (weights, *slopes))
      np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-3)


def test_a_site_has_its_weights_whatever_comes_along(problem):
  _, _, z, c = problem
  many = jnp.asarray(normal((3000, D), 5), 'f4').at[7:19].set(z)
  together, alone = (convex_weights(x, c, 0.1) for x in (many, z))
  np.testing.assert_array_equal(together[7:19], alone)
