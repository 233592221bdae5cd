import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from lasers_jax.bottlenecks import entropy
from lasers_jax.bottlenecks.entropy import Entropy
from lasers_jax.coding.priced import geometric_bits
from tests.bottlenecks.rows import drawn, run

B, SIDE, D = 64, 4, 8


@pytest.fixture(scope='module')
def z():
  generator = np.random.default_rng(0)
  return jnp.asarray(3 * generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


@functools.cache
def started(step=1.0, **fields):
  module = Entropy(D=D, step=step, **fields)
  generator = np.random.default_rng(1)
  prior = {
    'location': jnp.asarray(generator.uniform(-1, 1, D), 'f4'),
    'scale': jnp.asarray(generator.uniform(0.5, 2, D), 'f4'),
  }
  assert prior.keys() == drawn(module)['codebook'].keys()
  return module, {'codebook': prior}


def train(module, variables, z, seed=0):
  rngs = {'bottleneck': jax.random.key(seed)}
  return run(module, variables, z, train=True, rngs=rngs)


def shares(variables, y, step=1.0):
  """What the prior has about each number, by differences in float64."""
  prior = jax.tree.map(lambda x: np.asarray(x, 'f8'), variables['codebook'])
  above, below = (
    expit((y + side * step / 2 - prior['location']) / prior['scale'])
    for side in (1, -1)
  )
  return above - below


@pytest.mark.parametrize('step', [1.0, 2.5])
def test_the_nearest_multiple_within_the_limit(z, step):
  module, variables = started(limit=2, step=step)
  latent = run(module, variables, z, train=False)
  expected = np.clip(np.round(np.asarray(z) / step), -2, 2)
  np.testing.assert_array_equal(latent.codes, expected)
  np.testing.assert_allclose(latent.quantized, step * expected)


def test_the_image_moves_no_latent_beyond_the_last_integer(z):
  """Straight through, it would drive them on, and the code stays the same."""
  module, variables = started(limit=1, step=2.0)

  def seen(z):
    return jnp.sum(train(module, variables, z).quantized)

  expected = np.abs(np.asarray(z)) < 3
  assert 0.5 < expected.mean() < 0.9
  np.testing.assert_array_equal(jax.grad(seen)(z), expected)


@pytest.mark.parametrize('step', [1.0, 0.5])
def test_the_rate_is_what_the_prior_says_of_the_codes(z, step):
  module, variables = started(step=step)
  latent = run(module, variables, z, train=False)
  p = shares(variables, np.asarray(latent.quantized, 'f8'), step)
  bits = -np.log2(p).sum(axis=-1).mean()
  np.testing.assert_allclose(latent.losses['rate'], bits, rtol=1e-5)
  np.testing.assert_allclose(latent.stats['bits'], bits, rtol=1e-5)


def test_the_prior_adds_up_to_one():
  module, variables = started(limit=200)
  k = jnp.arange(-200.0, 201)[:, None, None, None]
  z = jnp.broadcast_to(k, (401, 1, 1, D))
  each = [
    run(module, variables, z[i : i + 1], train=False).stats['bits']
    for i in (199, 200, 201)
  ]
  p = shares(variables, np.asarray(z, 'f8'))
  np.testing.assert_allclose(p.sum(axis=(0, 1, 2)), 1, rtol=1e-9)
  expected = -np.log2(p[199:202]).sum(axis=-1).ravel()
  np.testing.assert_allclose(each, expected, rtol=1e-5)


def test_noise_stands_for_rounding_in_training(z):
  """Its rate is near that of the codes, and differs from draw to draw."""
  module, variables = started()
  exact = run(module, variables, z, train=False).losses['rate']
  rates = [train(module, variables, z, seed).losses['rate'] for seed in (0, 1)]
  assert rates[0] != rates[1]
  np.testing.assert_allclose(rates, exact, rtol=0.02)


def test_the_prior_is_that_of_the_data(z):
  """Near the entropy of the codes of each channel, from the first batch on."""
  widths = np.linspace(0.3, 2, D)
  z = jnp.asarray(widths * np.asarray(z), 'f4')
  module, variables = started()
  _, fitted = module.apply(
    variables, z, method='initialize', mutable=['codebook']
  )
  latent = run(module, fitted, z, train=False)
  entropy = 0
  for column in np.asarray(latent.codes).reshape(-1, D).T:
    _, counts = np.unique(column, return_counts=True)
    p = counts / counts.sum()
    entropy -= np.sum(p * np.log2(p))
  assert entropy < latent.losses['rate'] < 1.03 * entropy


def test_the_prior_follows_in_training(z):
  module, variables = started()
  rngs = {'bottleneck': jax.random.key(0)}
  _, updates = module.apply(
    variables, z, train=True, rngs=rngs, mutable=['codebook']
  )
  rows = np.asarray(z, 'f8').reshape(-1, D)
  mean = rows.mean(axis=0)
  scale = np.abs(rows - mean).mean(axis=0) / (2 * np.log(2))
  for name, moment in ('location', mean), ('scale', scale):
    expected = 0.9 * variables['codebook'][name] + 0.1 * moment
    np.testing.assert_allclose(updates['codebook'][name], expected, rtol=1e-4)


def test_the_mean_absolute_deviation_of_a_logistic_is_of_its_scale():
  y = np.random.default_rng(0).logistic(scale=3.0, size=100_000)
  np.testing.assert_allclose(entropy._SCALE * np.abs(y).mean(), 3, rtol=0.01)


def test_a_step_for_each_image(z):
  """Drawn evenly by its reciprocal; the rate is weighed by its square."""
  module, variables = started(max_step_scale=4.0)
  latent = train(module, variables, z)
  error = np.asarray(latent.quantized - z).reshape(B, -1)
  steps = 2 * np.abs(error).max(axis=1)  # of 128 numbers: nearly the bound
  assert steps.min() < 1.2
  assert 3.3 < steps.max() <= 4.001
  assert abs(np.median(1 / steps) - 0.625) < 0.12
  multiples = np.asarray(latent.quantized).reshape(B, -1)
  k = np.asarray(latent.codes).reshape(B, -1)
  of_each = np.sum(multiples * k, axis=1) / np.sum(k * k, axis=1)
  np.testing.assert_allclose(multiples, of_each[:, None] * k, atol=1e-5)

  p = [
    shares(variables, np.asarray(x, 'f8'), step)
    for x, step in zip(latent.quantized, of_each, strict=True)
  ]
  bits = -np.log2(p).sum(axis=-1).mean(axis=(1, 2))
  losses, stats = latent.losses, latent.stats
  np.testing.assert_allclose(stats['bits'], bits.mean(), rtol=0.03)
  weighed = (of_each**2 * bits).mean()
  np.testing.assert_allclose(losses['rate'], weighed, rtol=0.03)


def test_only_training_draws_steps(z):
  module, variables = started(max_step_scale=4.0)
  plain, _ = started()
  latent = run(module, variables, z, train=False)
  expected = run(plain, variables, z, train=False)
  np.testing.assert_array_equal(latent.codes, expected.codes)
  np.testing.assert_array_equal(latent.quantized, expected.quantized)


def test_extremes_are_finite(z):
  module, _ = started()

  def total(z, scale):
    prior = {'location': jnp.zeros(D), 'scale': jnp.full(D, scale)}
    latent = train(module, {'codebook': prior}, z)
    return latent.losses['rate'], latent

  gradient = jax.jit(jax.grad(total, has_aux=True))
  for size in (0, 1e3, 1e10):
    for scale in (0.0, 1e-30, 1.0, 1e6):
      to_z, latent = gradient(jnp.full_like(z, size), scale)
      for x in jax.tree.leaves((to_z, latent.losses, latent.quantized)):
        assert np.isfinite(x).all()
      assert np.abs(latent.codes).max() <= 31


def test_with_a_price_integers_are_cheaper(z):
  """The lowest of error plus price by the law, of all integers."""
  module, variables = started(step=0.7, price=0.3)
  prior = jax.tree.map(lambda x: np.asarray(x, 'f8'), variables['codebook'])
  deviation = prior['scale'] * 2 * np.log(2) / 0.7
  _, unit = (
    np.asarray(x) for x in geometric_bits(jnp.asarray(deviation, 'f4'))
  )
  k = np.arange(-31, 32)[:, None, None, None, None]
  cost = (np.asarray(z) / 0.7 - k) ** 2
  cost += 0.3 * unit * np.abs(k - np.round(prior['location'] / 0.7))
  latent = run(module, variables, z, train=False)
  np.testing.assert_array_equal(latent.codes, cost.argmin(axis=0) - 31)
  nearest, _ = started(step=0.7)
  plain = run(nearest, variables, z, train=False)
  assert latent.losses['rate'] < 0.99 * plain.losses['rate']


def test_a_price_is_of_the_step_of_each_image(z):
  module, variables = started(step=0.5, max_step_scale=4.0, price=0.2)
  latent = train(module, variables, z)
  one = np.asarray(latent.quantized) / np.where(latent.codes, latent.codes, 1)
  steps = np.max(np.where(latent.codes, one, 0), axis=(1, 2, 3))
  assert len(np.unique(steps.round(4))) > B / 2
  found = run(
    module.clone(step=float(steps[0]), max_step_scale=1.0),
    variables,
    z[:1],
    train=False,
  )
  assert np.mean(np.asarray(found.codes[0]) == latent.codes[0]) > 0.99
