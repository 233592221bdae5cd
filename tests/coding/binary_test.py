import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding import binary

BITS = [1, 3, 8]


def entropy(p):
  p = p[p > 0]
  return -np.sum(p * np.log(p))


def over_all_codes(x, scale, temperature):
  """The distribution of each site over all 2^d codes, by its definition."""
  codes = itertools.product((-scale, scale), repeat=x.shape[1])
  codes = np.array(list(codes))
  score = -np.sum((x[:, None] - codes[None]) ** 2, axis=2) / temperature
  p = np.exp(score - score.max(axis=1, keepdims=True))
  return p / p.sum(axis=1, keepdims=True)


def entropies(x, scale, temperature, weights=None):
  x = jnp.asarray(x, 'f4')
  weights = jnp.ones(len(x)) if weights is None else weights
  logits = binary.bit_logits(x, scale, temperature)
  return binary.entropies(logits, weights)


def signals(n, d, seed=0):
  return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize('d', BITS)
@pytest.mark.parametrize('temperature', [0.3, 4.0])
def test_the_entropy_of_sites_is_that_over_all_codes(d, temperature):
  x, scale = signals(20, d), 1 / np.sqrt(d)
  of_each, _ = entropies(x, scale, temperature)
  p = over_all_codes(x, scale, temperature)
  expected = np.mean([entropy(row) for row in p])
  np.testing.assert_allclose(of_each, expected, rtol=1e-4)


@pytest.mark.parametrize('d', BITS)
def test_the_entropy_of_the_mean_bounds_that_over_all_codes(d):
  x = signals(20, d)
  of_each, of_mean = entropies(x, 1.0, 0.5)
  exact = entropy(over_all_codes(x, 1.0, 0.5).mean(axis=0))
  assert exact <= of_mean * (1 + 1e-5)
  assert d > 1 or np.isclose(exact, of_mean, rtol=1e-5)
  assert 0 <= of_each <= of_mean <= d * np.log(2) * (1 + 1e-6)


def test_the_entropy_of_the_mean_is_exact_where_bits_are_independent():
  # Every value of one scalar meets every value of the other.
  a, b = [0.3, -1.0, 0.2], [0.5, 0.4]
  x = np.array(list(itertools.product(a, b)))
  _, of_mean = entropies(x, 1.0, 2.0)
  exact = entropy(over_all_codes(x, 1.0, 2.0).mean(axis=0))
  np.testing.assert_allclose(of_mean, exact, rtol=1e-5)


def test_equal_bits_count_as_two():
  x = np.repeat(10 * signals(64, 1), 2, axis=1)
  _, of_mean = entropies(x, 1.0, 0.01)
  exact = entropy(over_all_codes(x, 1.0, 0.01).mean(axis=0))
  np.testing.assert_allclose(of_mean, 2 * exact, rtol=1e-3)


def test_extremes_are_finite_and_so_is_their_gradient():
  @jax.jit
  @jax.value_and_grad
  def total(logits):
    return sum(binary.entropies(logits, jnp.ones(2)))

  for size in (0.0, 1.0, 30.0, 1e3, 1e30):
    value, gradient = total(size * jnp.array([[1.0, -1.0], [1.0, 1.0]]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if size == 0:
      np.testing.assert_allclose(value, 4 * np.log(2), rtol=1e-6)
    if size >= 1e3:  # sure of every bit, of which one is even
      np.testing.assert_allclose(value, np.log(2), rtol=1e-6)


def test_gradient_is_that_of_finite_differences():
  x, step = signals(6, 3), 1e-5

  def loss(x):
    each, mean = entropies(x, 1.0, 1.0)
    return each - 0.7 * mean

  def bit(p):
    return -p * np.log(p) - (1 - p) * np.log(1 - p)

  def exact(x):
    p = 1 / (1 + np.exp(-4 * x))
    return bit(p).sum(axis=1).mean() - 0.7 * bit(p.mean(axis=0)).sum()

  gradient = jax.jit(jax.grad(loss))(jnp.asarray(x, 'f4'))
  for i, j in ((0, 0), (3, 2), (5, 1)):
    move = np.zeros_like(x)
    move[i, j] = step
    slope = (exact(x + move) - exact(x - move)) / (2 * step)
    np.testing.assert_allclose(gradient[i, j], slope, rtol=1e-3, atol=1e-6)


def test_sites_of_no_weight_do_not_count():
  x = signals(12, 3)
  x[8:] = 1e3
  weights = jnp.arange(12) < 8
  some = entropies(x, 1.0, 1.0, weights.astype('f4'))
  np.testing.assert_allclose(some, entropies(x[:8], 1.0, 1.0), rtol=1e-6)
  none = entropies(x, 1.0, 1.0, jnp.zeros(12))
  np.testing.assert_array_equal(none, (0, 0))
