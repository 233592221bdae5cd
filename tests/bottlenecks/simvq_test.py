import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lasers_jax.bottlenecks.simvq import SimVQ
from tests.bottlenecks.rows import standard_normal

B, SIDE, D, K = 8, 4, 8, 16


@pytest.fixture(scope='module')
def z():
  return standard_normal((B, SIDE, SIDE, D), 0)


@pytest.fixture(scope='module')
def variables(z):
  return SimVQ(D=D, K=K).init(jax.random.key(0), z, train=False)


@functools.partial(jax.jit, static_argnames=('train', 'method'))
def apply(variables, *args, **options):
  return SimVQ(D=D, K=K).apply(variables, *args, **options)


def effective(variables):
  params = jax.tree.map(np.float64, variables['params'])
  codes = np.float64(variables['codebook']['codes'])
  return codes @ params['map'] + params['bias']


def test_codes_are_frozen_and_the_map_learns(variables):
  codes = variables['codebook']['codes']
  assert jax.tree.map(jnp.shape, variables) == {
    'params': {'map': (D, D), 'bias': (D,)},
    'codebook': {'codes': (K, D)},
  }
  np.testing.assert_allclose(np.std(codes), D**-0.5, rtol=0.2)
  for x in variables['params'].values():
    assert np.abs(x).max() <= D**-0.5
    assert np.ptp(x) > D**-0.5


def test_coding_is_that_of_the_effective_codes(z, variables):
  codes = effective(variables)
  chosen = cdist(z.reshape(-1, D), codes).argmin(axis=1)
  latent = apply(variables, z, train=False)
  np.testing.assert_array_equal(latent.codes.ravel(), chosen)
  np.testing.assert_allclose(
    latent.quantized.reshape(-1, D), codes[chosen], atol=1e-6
  )
  # The released decoder looks up the frozen ones.
  decoded = apply(variables, latent.codes, method='decode')
  np.testing.assert_array_equal(decoded, latent.quantized)
  frozen = variables['codebook']['codes'][latent.codes]
  assert np.abs(decoded - frozen).max() > 0.1
  np.testing.assert_allclose(
    apply(variables, method='atoms')[:, 0, 0], codes, atol=1e-6
  )


def test_losses_and_their_gradients(z, variables):
  """By hand: E = C W + b, so dW = Cᵀ dE and db = Σ dE."""

  @jax.jit
  def forward(params, z):
    latent = apply({**variables, 'params': params}, z, train=True)
    return latent.losses, latent.quantized

  (found, quantized), pull = jax.vjp(forward, variables['params'], z)
  assert set(found) == {'codebook', 'commitment'}
  codes = effective(variables)
  signals = np.float64(z).reshape(-1, D)
  chosen = cdist(signals, codes).argmin(axis=1)
  error = codes[chosen] - signals
  for loss in found.values():
    np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-5)

  zero, one = jnp.float32(0), jnp.float32(1)
  none = jnp.zeros(z.shape)
  to_params, to_z = pull(({'codebook': one, 'commitment': zero}, none))
  frozen = np.float64(variables['codebook']['codes'])[chosen]
  slope = 2 * error / error.size
  np.testing.assert_allclose(to_params['map'], frozen.T @ slope, atol=1e-6)
  np.testing.assert_allclose(to_params['bias'], slope.sum(axis=0), atol=1e-6)
  assert not np.any(to_z)

  to_params, to_z = pull(({'codebook': zero, 'commitment': one}, none))
  assert not any(np.any(x) for x in to_params.values())
  np.testing.assert_allclose(to_z.reshape(-1, D), -slope, atol=1e-6)

  # Straight through, and to no parameter.
  c = standard_normal(z.shape, 6)
  to_params, to_z = pull(({'codebook': zero, 'commitment': zero}, c))
  np.testing.assert_array_equal(to_z, c)
  assert not any(np.any(x) for x in to_params.values())
  np.testing.assert_array_equal(
    quantized, apply(variables, z, train=False).quantized
  )


def test_training_writes_nothing(z, variables):
  _, updates = SimVQ(D=D, K=K).apply(
    variables, z, train=True, mutable=['codebook', 'params']
  )
  jax.tree.map(np.testing.assert_array_equal, updates, dict(variables))


def test_the_start_has_the_mean_and_the_spread_of_the_data(z):
  """Else few codes, around another point, are known to collapse on one."""
  module = SimVQ(D=D, K=K)
  scale = jnp.linspace(0.1, 2, D)
  z = z * scale[None, None, None] + 20
  variables = module.init(jax.random.key(0), z, train=False)
  _, fitted = module.apply(
    variables, z, method='initialize', mutable=['params']
  )
  used = [
    len(np.unique(module.apply(x, z, method='encode')))
    for x in (variables, {**variables, **fitted})
  ]
  assert used[0] <= 3
  assert used[1] >= 12
  codes = effective({**variables, **fitted})
  signals = np.asarray(z).reshape(-1, D)
  np.testing.assert_allclose(codes.mean(axis=0), 20, atol=1)
  np.testing.assert_allclose(codes.std(axis=0), signals.std(axis=0), rtol=0.6)
  assert np.linalg.matrix_rank(fitted['params']['map']) == D


def test_masked_sites_count_for_nothing(z, variables):
  mask = jnp.arange(SIDE)[None, :, None] < jnp.full((B, 1, SIDE), 3)
  other = jnp.where(mask[..., None], z, 100.0)
  found = [apply(variables, x, train=True, mask=mask) for x in (z, other)]
  for x, y in zip(
    *(jax.tree.leaves((x.losses, x.stats)) for x in found), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-6)
  alone = apply(variables, z[:, :3], train=True)
  np.testing.assert_allclose(
    found[0].losses['codebook'], alone.losses['codebook'], rtol=1e-5
  )
