import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.hypervq import HyperVQ
from lasers_jax.coding.hyperbolic import mlr_logits
from tests.bottlenecks.rows import standard_normal

B, SIDE, D, K = 8, 4, 8, 16


@pytest.fixture(scope='module')
def z():
  return 0.5 * standard_normal((B, SIDE, SIDE, D), 0)


@pytest.fixture(scope='module')
def params():
  offsets = jnp.asarray(np.random.default_rng(2).uniform(0.5, 1, K), 'f4')
  return {'directions': standard_normal((K, D), 1), 'offsets': offsets}


@functools.partial(jax.jit, static_argnames=('train', 'method', 'module'))
def apply(params, x, seed=0, module=HyperVQ(D=D, K=K), **options):  # noqa: B008
  # Evaluation does without a key.
  rngs = {'bottleneck': jax.random.key(seed)} if options.get('train') else {}
  variables = {'params': params, 'codebook': {'use': jnp.ones(K)}}
  return module.apply(variables, x, rngs=rngs, **options)


logits_of = jax.jit(mlr_logits, static_argnums=3)


def table_of(params):
  z = np.float64(params['directions'])
  units = z / np.linalg.norm(z, axis=1, keepdims=True)
  return np.float64(params['offsets'])[:, None] * units


@pytest.mark.parametrize('curvature', [0.0, 1.0])
def test_evaluation_takes_the_largest_logit(curvature, z, params):
  module = HyperVQ(D=D, K=K, curvature=curvature)
  latent = apply(params, z, module=module, train=False)
  signals = z.reshape(-1, D)
  logits = logits_of(
    signals, params['directions'], params['offsets'], curvature
  )
  chosen = np.argmax(logits, axis=1)
  np.testing.assert_array_equal(latent.codes.ravel(), chosen)
  np.testing.assert_allclose(
    latent.quantized.reshape(-1, D), table_of(params)[chosen], atol=1e-6
  )
  assert latent.losses == {}
  # It is a classifier: not the nearest, and a code may have another's class.
  squares = np.sum((signals[:, None] - table_of(params)[None]) ** 2, axis=-1)
  assert np.any(np.argmin(squares, axis=1) != chosen)


def test_training_draws_by_the_softmax_of_the_logits(params):
  z = jnp.broadcast_to(0.5 * standard_normal((D,), 5), (B, SIDE, SIDE, D))
  drawn = np.stack(
    [apply(params, z, seed, train=True).codes for seed in range(40)]
  )
  logits = logits_of(z[0, 0, :1], params['directions'], params['offsets'], 1.0)
  expected = np.asarray(jax.nn.softmax(logits[0]))
  deviation = np.sqrt(expected * (1 - expected) / drawn.size)
  share = np.bincount(drawn.ravel(), minlength=K) / drawn.size
  assert np.all(np.abs(share - expected) < 4 * deviation + 1e-3)
  assert np.sum(expected > 0.02) > 3


def test_training_decodes_what_it_drew(z, params):
  latent = apply(params, z, train=True)
  np.testing.assert_array_equal(
    latent.quantized, apply(params, latent.codes, method='decode')
  )
  again, other = (apply(params, z, train=True, seed=s) for s in (0, 1))
  np.testing.assert_array_equal(latent.codes, again.codes)
  assert np.any(latent.codes != other.codes)


def test_gradients_are_those_of_the_straight_through_gumbel_softmax(z, params):
  module = HyperVQ(D=D, K=K, temperature=0.7)
  g = standard_normal(z.shape, 3)
  noise = jax.random.gumbel(jax.random.key(9), (z[..., 0].size, K))

  def ours(params, z):
    return jnp.sum(g * apply(params, z, module=module, train=True).quantized)

  def dense(params, z):
    directions, offsets = params['directions'], params['offsets']
    logits = mlr_logits(z.reshape(-1, D), directions, offsets, 1.0)
    noisy = logits + noise
    p = jax.nn.softmax(noisy / 0.7)
    hard = jax.nn.one_hot(jnp.argmax(noisy, axis=1), K)
    norms = jnp.linalg.norm(directions, axis=1, keepdims=True)
    table = offsets[:, None] * directions / norms
    one_hot = hard - jax.lax.stop_gradient(p) + p
    return jnp.sum(g.reshape(-1, D) * (one_hot @ table))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax.random, 'gumbel', lambda *_: noise)
    found, expected = (
      jax.jit(jax.grad(f, (0, 1)))(params, z) for f in (ours, dense)
    )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
    found,
    expected,
  )
  for x in jax.tree.leaves(found):
    assert np.all(np.any(x.reshape(x.shape[0], -1) != 0, axis=1))


def test_nothing_is_nan(z, params):
  def total(params, z):
    latent = apply(params, z, train=True)
    return jnp.sum(latent.quantized**2), latent

  unit = z / jnp.linalg.norm(z, axis=-1, keepdims=True)
  slope = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
  for latents in (0 * z, 1e3 * unit):
    found = slope(params, latents)
    found = jax.tree.leaves((found, apply(params, latents, train=False)))
    assert all(np.isfinite(x).all() for x in found)


def test_the_start_gives_each_signal_its_own_class(z):
  module = HyperVQ(D=D, K=K)
  drawn = module.init(jax.random.key(0), z, train=False)
  _, fitted = module.apply(
    drawn,
    z,
    method='initialize',
    mutable=['params'],
    rngs={'bottleneck': jax.random.key(0)},
  )
  params = fitted['params']
  table = table_of(params)
  codes = apply(params, jnp.asarray(table, 'f4')[None], method='encode')
  np.testing.assert_array_equal(codes[0], np.arange(K))
  lengths = np.linalg.norm(z.reshape(-1, D), axis=1)
  np.testing.assert_allclose(
    np.linalg.norm(table, axis=1), np.sqrt(np.mean(lengths**2)), rtol=1e-5
  )
  cosines = table @ np.asarray(z).reshape(-1, D).T / lengths[None]
  cosines /= np.linalg.norm(table, axis=1, keepdims=True)
  assert np.all(cosines.max(axis=1) > 0.99)


def test_masked_sites_count_for_nothing(z, params):
  mask = jnp.arange(SIDE)[None, :, None] < jnp.full((B, 1, SIDE), 3)
  other = jnp.where(mask[..., None], z, 3 * z[::-1])
  found = [apply(params, x, train=True, mask=mask).stats for x in (z, other)]
  whole = apply(params, z, train=True).stats
  assert set(found[0]) == {'usage', 'perplexity', 'relative_error'}
  for name, value in found[0].items():
    np.testing.assert_allclose(value, found[1][name], rtol=1e-6)
  assert found[0]['relative_error'] != whole['relative_error']


def test_use_is_that_of_the_largest_logits(z, params):
  variables = {'params': params, 'codebook': {'use': jnp.ones(K)}}
  module = HyperVQ(D=D, K=K, decay=0.75)
  rngs = {'bottleneck': jax.random.key(0)}
  latent, updates = module.apply(
    variables, z, train=True, mutable=['codebook'], rngs=rngs
  )
  chosen = np.ravel(apply(params, z, method='encode'))
  assert np.any(chosen != np.ravel(latent.codes))
  counts = np.bincount(chosen, minlength=K)
  expected = 0.75 + 0.25 * counts * K / counts.sum()
  np.testing.assert_allclose(updates['codebook']['use'], expected, rtol=1e-5)


def test_dead_classes_come_back_and_win_at_signals(z, params):
  dead = np.array([2, 7, 11])
  use = jnp.ones(K).at[dead].set(1e-3)
  _, after = HyperVQ(D=D, K=K).apply(
    {'params': params, 'codebook': {'use': use}},
    z,
    method='revive',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(0)},
  )
  np.testing.assert_array_equal(after['codebook']['use'], 1)
  alive = np.setdiff1d(np.arange(K), dead)
  for name, before in params.items():
    np.testing.assert_array_equal(after['params'][name][alive], before[alive])
  signals = np.asarray(z).reshape(-1, D)
  units = signals / np.linalg.norm(signals, axis=1, keepdims=True)
  directions = np.asarray(after['params']['directions'])[dead]
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  cosines = directions @ units.T
  np.testing.assert_allclose(cosines.max(axis=1), 1, rtol=1e-5)
  own = z.reshape(-1, D)[cosines.argmax(axis=1)]
  won = apply(after['params'], own[None], method='encode')[0]
  np.testing.assert_array_equal(won, dead)
