"""WAE, InfoVAE and RAE: their losses, against formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks import KL, RAE, WAE, InfoVAE
from lasers_jax.bottlenecks.regularized import SCALES, prior_mmd

D = 3


@pytest.fixture(scope='module')
def z():
  drawn = np.random.default_rng(0).normal(1, 2, (4, 2, 3, D))
  return jnp.asarray(drawn, jnp.float32)


def kernel(a, b):
  square = np.sum((a - b) ** 2)
  return sum(2 * D * s / (2 * D * s + square) for s in SCALES)


def mmd(x, y):
  """The unbiased estimate, pair by pair."""
  x, y = np.float64(x), np.float64(y)
  n, m = len(x), len(y)
  own = [kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j]
  prior = [kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j]
  crossed = [kernel(a, b) for a in x for b in y]
  return np.mean(own) + np.mean(prior) - 2 * np.mean(crossed)


@pytest.mark.parametrize('mean', [10, 1000])
def test_mmd_of_sites_far_from_zero(z, mean):
  """Their distances to each other are not lost in their squares."""
  key, far = jax.random.key(3), mean + 0.1 * np.asarray(z)
  y = jax.random.normal(key, (24, D))
  expected = mmd(far.reshape(-1, D), y)
  np.testing.assert_allclose(prior_mmd(far, key), expected, rtol=2e-4)


def test_mmd_is_that_of_all_pairs(z):
  key = jax.random.key(3)
  y = jax.random.normal(key, (24, D))
  expected = mmd(np.asarray(z).reshape(-1, D), y)
  np.testing.assert_allclose(prior_mmd(z, key), expected, rtol=1e-4)


def test_mmd_of_masked_sites_is_that_of_the_others(z):
  key, mask = jax.random.key(3), np.zeros((4, 2, 3), bool)
  mask[1:3] = True
  y = jax.random.normal(key, (24, D))
  expected = mmd(np.asarray(z)[1:3].reshape(-1, D), y)
  found = prior_mmd(z, key, jnp.asarray(mask))
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_mmd_is_small_for_the_prior_alone():
  key, other = jax.random.split(jax.random.key(0))
  x = jax.random.normal(other, (500, D))
  for near, far in ((x, x + 1), (x, 3 * x), (x, x / 3)):
    assert abs(prior_mmd(near, key)) < 0.02
    assert prior_mmd(far, key) > 0.1


def test_mmd_is_not_biased():
  keys = jax.random.split(jax.random.key(1), 400)
  draws = jax.random.normal(jax.random.key(2), (400, 8, D))
  found = np.asarray(jax.vmap(prior_mmd)(draws, keys))
  assert abs(found.mean()) < 4 * found.std() / 20


def test_wae_passes_its_latents_on(z):
  rngs = {'bottleneck': jax.random.key(5)}
  for train in (False, True):
    latent = WAE(D=D).apply({}, z, train=train, rngs=rngs)
    np.testing.assert_array_equal(latent.quantized, z)
    assert set(latent.losses) == {'mmd'}
  one, again = (WAE(D=D).apply({}, z, train=False) for _ in range(2))
  np.testing.assert_array_equal(one.losses['mmd'], again.losses['mmd'])


def test_info_vae_adds_both_divergences(z):
  module = InfoVAE(D=D, alpha=0.25, lambda_=10.0)
  variables = module.init(jax.random.key(1), z, train=False)
  latent = module.apply(variables, z, train=False)
  kl = KL(D=D).apply(variables, z, train=False).losses['kl']
  expected = 0.75 * kl + 9.25 * prior_mmd(latent.quantized, jax.random.key(0))
  np.testing.assert_allclose(latent.losses['info'], expected, rtol=1e-5)


def test_info_vae_draws_as_kl_does(z):
  variables = KL(D=D).init(jax.random.key(1), z, train=False)
  rngs = {'bottleneck': jax.random.key(5)}
  one, other = (
    module.apply(variables, z, train=True, rngs=rngs).quantized
    for module in (KL(D=D), InfoVAE(D=D))
  )
  np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('alpha, lambda_', [(0.0, 1e-3), (0.5, 0.5)])
def test_info_vae_never_drives_draws_away(alpha, lambda_, z):
  with pytest.raises(ValueError, match='must be above 1, or the MMD'):
    InfoVAE(D=D, alpha=alpha, lambda_=lambda_).check()


def test_rae_counts_half_the_squares(z):
  latent = RAE(D=D).apply({}, z, train=True)
  np.testing.assert_array_equal(latent.quantized, z)
  expected = (np.float64(z) ** 2).sum(axis=-1).mean() / 2
  np.testing.assert_allclose(latent.losses['norm'], expected, rtol=1e-6)


@pytest.mark.parametrize('module', [WAE(D=D), InfoVAE(D=D), RAE(D=D)])
def test_minimizing_brings_latents_towards_the_prior(module, z):
  variables = module.init(jax.random.key(1), z, train=False)

  def loss(z):
    return sum(module.apply(variables, z, train=False).losses.values())

  # They lie too far out, at a mean of 1 and a deviation of 2.
  after = z - 1e-2 * jax.grad(loss)(z)
  assert loss(after) < loss(z)
  assert jnp.mean(after**2) < jnp.mean(z**2)
