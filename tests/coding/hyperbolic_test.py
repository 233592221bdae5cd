import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding.hyperbolic import mlr_logits, most_likely_class

N, D, K = 37, 8, 16


def normal(shape, seed):
  return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope='module')
def arrays():
  """Tangents, directions and offsets, in float32."""
  offsets = np.random.default_rng(2).uniform(-1, 1, K)
  arrays = 0.4 * normal((N, D), 0), normal((K, D), 1), offsets
  return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def norms(x):
  return np.linalg.norm(x, axis=-1, keepdims=True)


def ball(u, c):
  return np.tanh(c**0.5 * norms(u)) * u / (c**0.5 * norms(u))


def of_the_paper(x, z, r, c):
  """Shimizu et al. 2021, at points of the ball, in float64."""
  root, lam = np.sqrt(c), 2 / (1 - c * norms(x) ** 2)
  inside = lam * root * (x @ (z / norms(z)).T) * np.cosh(2 * root * r)
  inside -= (lam - 1) * np.sinh(2 * root * r)
  return 2 / root * norms(z).T * np.arcsinh(inside)


@pytest.mark.parametrize('c', [0.1, 1.0, 4.0])
def test_logits_are_those_of_the_paper(c, arrays):
  u, z, r = (np.asarray(x, np.float64) for x in arrays)
  expected = of_the_paper(ball(u, c), z, r, c)
  np.testing.assert_allclose(mlr_logits(*arrays, c), expected, atol=2e-4)


def test_flat_space_is_the_limit(arrays):
  u, z, r = (np.asarray(x, np.float64) for x in arrays)
  expected = 4 * norms(z).T * (u @ (z / norms(z)).T - r[None])
  np.testing.assert_allclose(mlr_logits(*arrays, 0.0), expected, atol=2e-5)
  far = np.abs(mlr_logits(*arrays, 1.0) - expected).max()
  near = np.abs(mlr_logits(*arrays, 1e-2) - expected).max()
  assert near < far / 20
  assert far > 1
  np.testing.assert_allclose(mlr_logits(*arrays, 1e-8), expected, atol=1e-4)


@pytest.mark.parametrize('c', [0.0, 0.1, 1.0])
def test_the_logit_of_a_class_at_its_own_point_is_zero(c, arrays):
  _, z, r = arrays
  unit = z / jnp.linalg.norm(z, axis=1, keepdims=True)
  r = jnp.abs(r)
  for scale, sign in ((1.0, 0), (1.1, 1), (0.9, -1)):
    own = np.diag(mlr_logits(scale * r[:, None] * unit, z, r, c))
    assert np.all(np.sign(np.where(np.abs(own) < 1e-4, 0, own)) == sign)


def test_the_gradient_is_that_of_the_paper(arrays):
  """By central differences of the formula in float64."""
  u, z, r = (np.asarray(x, np.float64) for x in arrays)
  weights = normal((N, K), 5)

  def value(u, z, r):
    return np.sum(weights * of_the_paper(ball(u, 0.5), z, r, 0.5))

  def loss(*arrays):
    return jnp.sum(jnp.asarray(weights, 'f4') * mlr_logits(*arrays, 0.5))

  gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*arrays)
  for i, gradient in enumerate(gradients):
    step = normal(gradient.shape, 6)
    up, down = [u, z, r], [u, z, r]
    up[i], down[i] = up[i] + 1e-5 * step, down[i] - 1e-5 * step
    slope = (value(*up) - value(*down)) / 2e-5
    np.testing.assert_allclose(np.sum(gradient * step), slope, rtol=1e-3)


def test_nothing_is_nan(arrays):
  u, z, r = arrays
  far = u / jnp.linalg.norm(u, axis=1, keepdims=True) * 1e3
  total = jax.jit(
    jax.value_and_grad(lambda *x: jnp.sum(mlr_logits(*x, 1.0)), (0, 1, 2))
  )
  for tangents in (0 * u, 1e-20 * u, far):
    for directions in (0 * z, z, 1e3 * z):
      for offsets in (0 * r, 1e3 * r):
        leaves = jax.tree.leaves(total(tangents, directions, offsets))
        assert all(np.isfinite(x).all() for x in leaves)


def test_radius_still_counts_where_the_ball_has_no_float_for_it():
  """tanh(8) is 1 in float32 to all but two digits."""
  axis = jnp.eye(D)[:1]
  lengths = jnp.linspace(6.5, 9, N)[:, None]
  logits = mlr_logits(
    lengths * axis, jnp.broadcast_to(axis, (K, D)), jnp.zeros(K), 1.0
  )
  # 2 asinh(sinh(2s)) = 4 s.
  np.testing.assert_allclose(logits[:, :1], 4 * lengths, rtol=1e-5)


def test_most_likely_class(arrays):
  u, z, r = (np.asarray(x, np.float64) for x in arrays)
  expected = of_the_paper(ball(u, 1.0), z, r, 1.0).argmax(axis=1)
  found = most_likely_class(*arrays, c=1.0)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, expected)
