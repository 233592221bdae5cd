import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lasers_jax.bottlenecks.cvq import CVQ
from tests.bottlenecks.rows import standard_normal

B, SIDE, D, K = 8, 4, 8, 16


@pytest.fixture(scope='module')
def z():
  return standard_normal((B, SIDE, SIDE, D), 0)


@pytest.fixture(scope='module')
def variables():
  """Of codes at a distance, of which many are not the nearest to any."""
  codes = standard_normal((K, D), 1) + 2 * jnp.eye(D)[:1]
  use = jnp.asarray(np.random.default_rng(2).uniform(0, 2, K), jnp.float32)
  return {'params': {'codes': codes}, 'codebook': {'use': use}}


@functools.partial(jax.jit, static_argnums=0)
def train(module, variables, z, mask=None):
  return module.apply(variables, z, train=True, mask=mask, mutable=['codebook'])


@functools.partial(jax.jit, static_argnums=0)
def revive(module, variables, z, seed=0):
  _, changed = module.apply(
    variables,
    z,
    method='revive',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(seed)},
  )
  return {**variables, **changed}


def step(module, variables, z, seed=0):
  """What a step of the trainer does, but for the optimizer."""
  latent, updates = train(module, variables, z)
  return latent, revive(module, {**variables, **updates}, z, seed)


@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_coding(distance, z, variables):
  module = CVQ(D=D, K=K, distance=distance)
  latent = module.apply(variables, z, train=False)
  codes = np.asarray(variables['params']['codes'])
  chosen = cdist(z.reshape(-1, D), codes, distance).argmin(axis=1)
  np.testing.assert_array_equal(latent.codes.ravel(), chosen)
  # Codes are decoded as they are, whatever the angle was measured with.
  np.testing.assert_array_equal(latent.quantized.reshape(-1, D), codes[chosen])


def test_losses_reach_the_codes_and_the_encoder(z, variables):
  module = CVQ(D=D, K=K)

  def losses(params, z):
    return module.apply({**variables, 'params': params}, z, train=True).losses

  values, pull = jax.vjp(losses, variables['params'], z)
  codes = module.apply(variables, z, method='encode').ravel()
  signals = np.float64(z).reshape(-1, D)
  error = np.float64(variables['params']['codes'])[codes] - signals
  slope = 2 * error / error.size
  zero, one = jnp.float32(0), jnp.float32(1)
  for loss in values.values():
    np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-5)

  to_params, to_z = pull({'codebook': one, 'commitment': zero})
  expected = np.zeros((K, D))
  np.add.at(expected, codes, slope)
  np.testing.assert_allclose(to_params['codes'], expected, atol=1e-6)
  assert not np.any(to_z)
  to_params, to_z = pull({'codebook': zero, 'commitment': one})
  assert not np.any(to_params['codes'])
  np.testing.assert_allclose(to_z.reshape(-1, D), -slope, atol=1e-6)


def test_a_step_is_that_of_the_paper(z, variables):
  """N and α in float64; `closest` anchors by their definition."""
  module = CVQ(D=D, K=K, distance='euclidean', anchors='closest', decay=0.9)
  _, after = step(module, variables, z)
  signals = np.float64(z).reshape(-1, D)
  codes = np.float64(variables['params']['codes'])
  distances = cdist(signals, codes)
  counts = np.bincount(distances.argmin(axis=1), minlength=K)
  # The paper's N_k is a share of the signals.
  n_k = np.float64(variables['codebook']['use']) / K
  n_k = 0.9 * n_k + 0.1 * counts / len(signals)
  np.testing.assert_allclose(after['codebook']['use'], n_k * K, rtol=1e-5)
  alpha = np.exp(-n_k * K * 10 / (1 - 0.9) - 1e-3)[:, None]
  anchors = signals[distances.argmin(axis=0)]
  expected = codes * (1 - alpha) + anchors * alpha
  np.testing.assert_allclose(after['params']['codes'], expected, atol=1e-5)


@pytest.mark.parametrize('anchors', ['closest', 'random', 'probrandom'])
def test_unused_codes_move_and_used_ones_stay(anchors, z, variables):
  module = CVQ(D=D, K=K, anchors=anchors)
  use = jnp.where(jnp.arange(K) < 5, 0.0, 1.0)
  before = {**variables, 'codebook': {'use': use}}
  codes = revive(module, before, z)['params']['codes']
  np.testing.assert_array_equal(codes[5:], variables['params']['codes'][5:])
  distances = cdist(codes[:5], z.reshape(-1, D))
  assert np.all(distances.min(axis=1) < 0.01)


def test_dead_codes_come_to_life_and_stay(z):
  """They begin as one, of which the first is chosen for all."""
  module = CVQ(D=D, K=K)
  codes = jnp.ones((K, D))
  variables = {'params': {'codes': codes}, 'codebook': {'use': jnp.zeros(K)}}
  used = []
  for seed in range(6):
    latent, variables = step(module, variables, z, seed)
    used.append(len(np.unique(latent.codes)))
  assert used[0] == 1
  assert used[-1] > K / 2


def test_only_the_forward_pass_in_training_counts_use(z, variables):
  module = CVQ(D=D, K=K)
  _, updates = train(module, variables, z)
  assert set(updates) == {'codebook'}
  assert np.any(updates['codebook']['use'] != variables['codebook']['use'])
  _, updates = module.apply(variables, z, train=False, mutable=['codebook'])
  for after in (updates, revive(module, variables, z)):
    np.testing.assert_array_equal(
      after['codebook']['use'], variables['codebook']['use']
    )


def test_the_start_is_of_signals_without_use(z):
  module = CVQ(D=D, K=K)
  drawn = module.init(jax.random.key(0), z, train=False)
  assert np.abs(drawn['params']['codes']).max() <= 1 / K
  np.testing.assert_array_equal(drawn['codebook']['use'], 0)
  _, fitted = module.apply(
    drawn,
    z,
    method='initialize',
    mutable=['params'],
    rngs={'bottleneck': jax.random.key(0)},
  )
  distances = cdist(fitted['params']['codes'], z.reshape(-1, D))
  assert np.all(distances.min(axis=1) < 0.2)
  assert module.revive_every == 1


def test_moves_are_those_of_their_key(z, variables):
  module = CVQ(D=D, K=K)
  unused = {**variables, 'codebook': {'use': jnp.zeros(K)}}
  one, again, other = (
    revive(module, unused, z, seed)['params']['codes'] for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(one, again)
  assert np.any(one != other)


def test_masked_sites_count_for_nothing(z, variables):
  module = CVQ(D=D, K=K)
  mask = jnp.arange(SIDE)[None, :, None] < jnp.full((B, 1, SIDE), 3)
  other = jnp.where(mask[..., None], z, 100.0)
  found = []
  for x, option in ((z, mask), (other, mask), (z[:, :3], None)):
    latent, updates = train(module, variables, x, mask=option)
    found.append(jax.tree.leaves((latent.losses, latent.stats, updates)))
  for x, y, w in zip(*found, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5)
    np.testing.assert_allclose(x, w, rtol=1e-5)


@pytest.mark.parametrize(
  'fields, message',
  [
    (
      {'distance': 'l2'},
      "distance must be one of ('cosine', 'euclidean'): 'l2'",
    ),
    (
      {'anchors': 'far'},
      "anchors must be one of ('closest', 'random', 'probrandom'): 'far'",
    ),
  ],
)
def test_check(fields, message):
  with pytest.raises(ValueError) as error:
    CVQ(**{'D': D, 'K': K, **fields}).check()
  assert str(error.value) == message
