import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding.index_propagation import (
  largest_product,
  pass_through,
  soft_choices,
)

N, D, K = 37, 8, 16
BLOCKS = (5, None)  # which divides K unevenly, and all at once


def normal(shape, seed):
  generator = np.random.default_rng(seed)
  return jnp.asarray(generator.standard_normal(shape), jnp.float32)


@pytest.fixture(scope='module')
def arrays():
  """Signals, codes, and what they are multiplied with for a loss."""
  return normal((N, D), 0), normal((K, D), 1), normal((N, D), 2)


def softmax(x):
  e = np.exp(x - x.max(axis=1, keepdims=True))
  return e / e.sum(axis=1, keepdims=True)


def test_largest_product(arrays):
  signals, codes, _ = arrays
  expected = np.argmax(np.asarray(signals) @ np.asarray(codes).T, axis=1)
  found = largest_product(signals, codes)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, expected)
  # Equal codes: the first; a longer one: that.
  twins = jnp.concatenate([codes, codes])
  np.testing.assert_array_equal(largest_product(signals, twins), expected)
  twins = jnp.concatenate([codes, 1.5 * codes])
  np.testing.assert_array_equal(largest_product(signals, twins), expected + K)


def propagation(arrays, block):
  """Returns the value, and the gradients of its product with g."""
  signals, codes, g = arrays
  indices = largest_product(signals, codes)

  def loss(signals, codes):
    even = jnp.full(N, 1 / N)
    soft = soft_choices(signals, codes, even, 0.7, block).soft
    value = pass_through(soft, codes[indices])
    return jnp.sum(g * value), value

  slope = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
  gradients, value = slope(signals, codes)
  np.testing.assert_array_equal(value, codes[indices])
  return gradients


@pytest.mark.parametrize('block', BLOCKS)
def test_propagation_by_hand(arrays, block):
  """Through the look-up, and through p: ds = p (g·c - Σ p (g·c))."""
  z, c, g = (np.asarray(x, np.float64) for x in arrays)
  p = softmax(z @ c.T)
  from_p = g @ c.T
  from_logits = p * (from_p - np.sum(p * from_p, axis=1, keepdims=True))
  to_codes = from_logits.T @ z
  np.add.at(to_codes, np.argmax(z @ c.T, axis=1), g)

  to_signals, found = propagation(arrays, block)
  np.testing.assert_allclose(to_signals, from_logits @ c, atol=2e-5)
  np.testing.assert_allclose(found, to_codes, atol=2e-5)
  assert np.all(np.any(found != 0, axis=1)), 'every code has a gradient'


def test_propagation_is_the_straight_through_one_hot(arrays):
  """onehot = hard - sg(p) + p, and onehot @ C, as in the paper."""
  signals, codes, g = arrays

  def loss(signals, codes):
    logits = signals @ codes.T
    p = jax.nn.softmax(logits)
    hard = jax.nn.one_hot(jnp.argmax(logits, axis=1), K)
    one_hot = hard - jax.lax.stop_gradient(p) + p
    return jnp.sum(g * (one_hot @ codes))

  dense = jax.jit(jax.grad(loss, (0, 1)))(signals, codes)
  for found, expected in zip(propagation(arrays, None), dense, strict=True):
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize('block', BLOCKS)
def test_entropies_are_those_of_the_definition(arrays, block):
  z, c, _ = arrays
  weights = np.random.default_rng(3).uniform(size=N)
  weights[:4] = 0
  weights /= weights.sum()
  p = softmax(np.asarray(z, np.float64) @ np.asarray(c, np.float64).T / 0.7)
  mean = weights @ p
  expected = -weights @ np.sum(p * np.log(p), axis=1), -mean @ np.log(mean)
  weights = jnp.asarray(weights, jnp.float32)

  def dense(signals, codes):
    p = jax.nn.softmax(signals @ codes.T / 0.7)
    mean = weights @ p
    return -weights @ jnp.sum(p * jnp.log(p), axis=1) + 2 * mean @ jnp.log(mean)

  def chunked(signals, codes):
    _, *found = soft_choices(signals, codes, weights, 0.7, block)
    return found[0] - 2 * found[1], found

  slope = jax.jit(jax.grad(chunked, (0, 1), has_aux=True))
  gradients, found = slope(z, c)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  dense_gradients = jax.jit(jax.grad(dense, (0, 1)))(z, c)
  for one, other in zip(gradients, dense_gradients, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-6)
  assert not np.any(gradients[0][:4])


@pytest.mark.parametrize('block', BLOCKS)
def test_a_gradient_of_all_is_the_sum_of_those_of_each(arrays, block):
  signals, codes, g = arrays
  even = jnp.full(N, 1 / N)

  def gradients(*scales):
    def loss(signals, codes):
      soft, *found = soft_choices(signals, codes, even, 0.7, block)
      terms = jnp.sum(g * soft), *found
      return sum(a * x for a, x in zip(scales, terms, strict=True))

    return jax.jit(jax.grad(loss, (0, 1)))(signals, codes)

  parts = zip(*(gradients(*row) for row in 3 * np.eye(3)), strict=True)
  for one, each in zip(gradients(3, 3, 3), parts, strict=True):
    np.testing.assert_allclose(one, sum(each), atol=1e-5)


def test_entropies_at_their_ends():
  """Sure and varied, sure and alike, unsure: of K codes at the corners."""
  codes, even = 1e3 * jnp.eye(D), jnp.full(D, 1 / D)
  most = np.log(D)

  def total(signals):
    _, *found = soft_choices(signals, codes, even, 0.01)
    return sum(found), found

  slope = jax.jit(jax.grad(total, has_aux=True))
  for signals, expected in (
    (jnp.eye(D), (0, most)),
    (jnp.eye(D)[:1] * jnp.ones((D, 1)), (0, 0)),
    (jnp.zeros((D, D)), (most, most)),
  ):
    gradient, found = slope(signals)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.isfinite(gradient).all()


def test_all_logits_are_never_in_memory():
  """At the largest codebook of the paper; compiled, not run."""
  n, d, k = 4096, 16, 262_144

  def loss(signals, codes, weights):
    chosen = codes[largest_product(signals, codes)]
    soft, each, together = soft_choices(signals, codes, weights, 0.01)
    return jnp.sum(pass_through(soft, chosen) ** 2) + each - together

  shapes = [jax.ShapeDtypeStruct(s, 'f4') for s in ((n, d), (k, d), (n,))]
  compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()
  used = compiled.memory_analysis().temp_size_in_bytes
  assert used < 4 * n * k / 8
