import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks import mqvae_networks
from lasers_jax.bottlenecks.mqvae_networks import (
  DemaskNet,
  by_image,
  draw,
  trusting_attention,
)
from tests.bottlenecks.mqvae_reference import D, attention, demasked
from tests.bottlenecks.rows import normal


def test_trusting_attention_is_softmax_times_trust():
  q, k, v = (normal((2, 5, 3), seed) for seed in range(3))
  trust = np.random.default_rng(4).uniform(0.01, 1, (2, 5))
  found = trusting_attention(q, k, v, jnp.asarray(trust, jnp.float32))
  np.testing.assert_allclose(found, attention(q, k, v, trust), atol=1e-4)


def test_what_is_not_trusted_at_all_is_no_key():
  q, k, v = (normal((2, 5, 3), seed) for seed in range(3))
  trust = jnp.array([[1, 0, 1, 0, 0.5]] * 2)
  found = trusting_attention(q, k, v, trust)
  some = np.array([0, 2, 4])
  alone = trusting_attention(q, k[:, some], v[:, some], trust[:, some])
  np.testing.assert_allclose(found, alone, rtol=1e-5)
  nothing = trusting_attention(q, k, v, jnp.zeros_like(trust))
  np.testing.assert_array_equal(nothing, 0)


def test_demask_net_is_that_of_the_equations():
  net = DemaskNet(D, 6, 2)
  grid, trust = normal((2, 3, 5, D)), np.full((2, 3, 5), 0.02)
  trust[:, 1, ::2] = 1
  params = draw(jax.random.key(0), net, D)
  params = jax.tree.map(
    lambda x: x + 0.1 * normal(x.shape, seed=x.size), params
  )
  found = by_image(net, params, grid, jnp.asarray(trust, 'f4'))
  expected = demasked(params, grid, trust, 2)
  np.testing.assert_allclose(found, expected, atol=1e-3)
  # The attention is not idle, nor is the growth of trust.
  for other in (0 * trust + 1, trust**2):
    change = demasked(params, grid, other, 2) - expected
    assert np.abs(change).max() > 0.01


def test_the_gradient_of_a_batch_is_that_of_its_images():
  net, c = DemaskNet(D, 6, 1), normal((3, 4, 5, D), 1)
  grid = normal((3, 4, 5, D))
  trust = jnp.full((3, 4, 5), 0.02).at[:, ::2].set(1.0).at[0, 0].set(0.0)
  params = draw(jax.random.key(0), net, D)

  def attention(q, k, v, trust):
    logits = jnp.einsum('bqc,bkc->bqk', q, k) / q.shape[-1] ** 0.5
    logits = jnp.where(trust[:, None] > 0, logits, -1e30)
    return (jax.nn.softmax(logits) * trust[:, None]) @ v

  def total(params, grid, trust):
    return jnp.sum(by_image(net, params, grid, trust) * c)

  def expected(params, grid, trust):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(mqvae_networks, 'trusting_attention', attention)
      return jnp.sum(net.apply({'params': params}, grid, trust) * c)

  arrays = params, grid, trust.at[0, 0].set(0.5)
  gradient = jax.jit(jax.grad(total, (0, 1, 2)))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=1e-4, atol=1e-5 * np.abs(y).max()
    ),
    gradient(*arrays),
    jax.jit(jax.grad(expected, (0, 1, 2)))(*arrays),
  )
  padded = gradient(params, grid, trust)[:2]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(padded))
  np.testing.assert_array_equal(padded[1][0, 0], 0 * padded[1][0, 0])
