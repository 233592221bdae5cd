import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks import FSQ, Lasers, Residual
from tests.bottlenecks.mqvae_reference import (
  INNER,
  D,
  K,
  demasked,
  layer_norm,
  mqvae,
  scores_of,
  sigmoid,
)
from tests.bottlenecks.rows import assert_same, normal

B, SIDE = 4, 4
N, M = SIDE**2, 4


def start(module, z):
  drawn = module.init(jax.random.key(1), z, train=False)
  _, fitted = module.apply(
    drawn,
    z,
    method='initialize',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(2)},
  )
  return {**drawn, **fitted}


@pytest.fixture(scope='module')
def z():
  return normal((B, SIDE, SIDE, D))


@pytest.fixture(scope='module')
def variables(z):
  variables = start(mqvae(), z)
  # Away from where they start: zero biases, and unit scales.
  moved = jax.tree.map(
    lambda x: x + 0.3 * normal(x.shape, seed=x.size) / 3, variables['params']
  )
  return {**variables, 'params': moved}


def forward(variables, z, train=False, **options):
  rngs = {'bottleneck': jax.random.key(9)}
  return mqvae().apply(variables, z, train=train, rngs=rngs, **options)


def choose(variables, z, mask=None, module=None):
  """Positions [B, M], and what is coded: [B, M, D]."""
  module = module or mqvae()
  positions, sites = module.apply(variables, z, mask, method='_choose')
  return np.asarray(positions), np.asarray(sites).reshape(len(positions), -1, D)


# The equations


def test_the_best_sites_are_kept_normalized_and_times_their_score(variables, z):
  scores = scores_of(variables['params'], z).reshape(B, N)
  positions, sites = choose(variables, z)
  best = np.sort(np.argsort(-scores, axis=1)[:, :M], axis=1)
  np.testing.assert_array_equal(positions, best)
  every = scores[..., None] * layer_norm(np.float64(z).reshape(B, N, D))
  expected = np.take_along_axis(every, best[..., None], axis=1)
  np.testing.assert_allclose(sites, expected, atol=1e-4)
  assert np.ptp(scores) > 0.1


def test_codes_are_put_in_place_among_tokens(variables, z):
  latent = forward(variables, z)
  codes = np.asarray(variables['codebook']['inner']['codes'])
  params = variables['params']
  grid = np.tile(params['token'], (B, N, 1))
  trust = np.full((B, N), 0.02)
  for b in range(B):
    where = latent.codes.positions[b]
    grid[b, where] = codes[latent.codes.inner[b, 0]]
    trust[b, where] = 1
  expected = demasked(
    params['demask'],
    grid.reshape(z.shape),
    trust.reshape(B, SIDE, SIDE),
    1,
  )
  np.testing.assert_allclose(latent.quantized, expected, atol=1e-3)


def test_to_keep_all_is_the_inner_bottleneck_of_the_weighed_sites(variables, z):
  module = mqvae(keep=1.0)
  latent = module.apply(variables, z, train=False)
  np.testing.assert_array_equal(
    latent.codes.positions, np.tile(np.arange(N), (B, 1))
  )
  scores = scores_of(variables['params'], z)
  sites = scores[..., None] * layer_norm(np.float64(z))
  inner = {'codebook': variables['codebook']['inner']}
  alone = INNER.apply(inner, jnp.asarray(sites, 'f4'), train=False)
  np.testing.assert_array_equal(
    latent.codes.inner.reshape(B, SIDE, SIDE), alone.codes
  )
  for found, expected in (
    (latent.losses, alone.losses),
    (latent.stats, alone.stats),
  ):
    assert found.keys() == expected.keys()
    for name in found:
      np.testing.assert_allclose(found[name], expected[name], rtol=1e-3)
  expected = demasked(
    variables['params']['demask'], alone.quantized, np.ones((B, SIDE, SIDE)), 1
  )
  np.testing.assert_allclose(latent.quantized, expected, atol=1e-3)


# Learning


@pytest.fixture(scope='module')
def c(z):
  """The decoder's gradient."""
  return normal(z.shape, seed=5)


@pytest.fixture(scope='module')
def gradients(variables, z, c):
  """Of the sum of c q: to the parameters, and to z."""

  def total(params, z):
    latent = forward({**variables, 'params': params}, z, train=True)
    return jnp.sum(latent.quantized * c)

  return jax.jit(jax.grad(total, (0, 1)))(variables['params'], z)


def test_everything_learns_from_the_decoder(gradients):
  to_params, to_z = gradients
  assert to_params.keys() == {'score', 'demask', 'token'}
  assert all(np.any(x != 0) for x in jax.tree.leaves(to_params))
  assert np.all(np.any(to_z != 0, axis=-1))  # by the scores at least


def test_scores_learn_through_the_product_alone(variables, z, c, gradients):
  """What moves a site moves what is decoded as much, and the choice stays."""
  params, latent = variables['params'], forward(variables, z)
  positions = np.asarray(latent.codes.positions)[..., None]
  codes = np.float64(variables['codebook']['inner']['codes'])
  values = codes[latent.codes.inner[:, 0]]
  sites = layer_norm(np.float64(z).reshape(B, N, D))
  sites = np.take_along_axis(sites, positions, axis=1)
  scores = scores_of(params, z).reshape(B, N, 1)
  scores = np.take_along_axis(scores, positions, axis=1)
  bias, step = np.log(scores / (1 - scores)), 1e-5
  trust = np.full((B, N, 1), 0.02)
  np.put_along_axis(trust, positions, 1.0, axis=1)

  def total(bias):
    grid = np.tile(np.float64(params['token']), (B, N, 1))
    moved = values + (sigmoid(bias) - scores) * sites
    np.put_along_axis(grid, positions, moved, axis=1)
    maps = demasked(
      params['demask'], grid.reshape(z.shape), trust.reshape(z.shape[:-1]), 1
    )
    return np.sum(maps * np.float64(c))

  slope = (total(bias + step) - total(bias - step)) / (2 * step)
  found = gradients[0]['score']['Conv_1']['bias']
  np.testing.assert_allclose(found, [slope], rtol=1e-3)


def test_codes_follow_the_sites_that_are_kept(variables, z):
  latent, updates = forward(variables, z, train=True, mutable=['codebook'])
  before, after = variables['codebook']['inner'], updates['codebook']['inner']
  _, sites = choose(variables, z)
  sums = 0.99 * np.asarray(before['sums'])
  each = zip(sites.reshape(-1, D), np.ravel(latent.codes.inner), strict=True)
  for site, code in each:
    sums[code] += 0.01 * K / (B * M) * site
  np.testing.assert_allclose(after['sums'], sums, atol=1e-5)


def test_codes_start_and_are_revived_from_kept_sites(z):
  # With as many kept sites as codes, each becomes one, and a little noise.
  module = mqvae()
  variables = start(module, z)
  _, sites = choose(variables, z)
  inner = variables['codebook']['inner']
  distances = np.linalg.norm(
    np.asarray(inner['codes'])[:, None] - sites.reshape(1, -1, D), axis=-1
  )
  assert np.all(distances.min(axis=1) < 0.1)
  dead = {**inner, 'use': jnp.ones(K).at[3].set(0.0)}
  dead['codes'] = inner['codes'].at[3].set(100.0)
  _, changed = module.apply(
    {**variables, 'codebook': {'inner': dead}},
    z,
    method='revive',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(3)},
  )
  revived = np.asarray(changed['codebook']['inner']['codes'][3])
  assert np.linalg.norm(sites.reshape(-1, D) - revived, axis=1).min() < 1e-5


# Coding


def test_the_first_of_equal_sites_are_kept(variables):
  # Of equal sites only those at the border score otherwise.
  z = jnp.zeros((1, SIDE, SIDE, D))
  scores = scores_of(variables['params'], z)
  assert np.ptp(scores) == 0
  positions, _ = choose(variables, z)
  np.testing.assert_array_equal(positions, [[0, 1, 2, 3]])


@pytest.mark.parametrize('train', [False, True])
def test_images_of_a_batch_do_not_touch_each_other(variables, z, train):
  together = forward(variables, z, train)
  other = forward(variables, z.at[1:].multiply(-5.0), train)
  alone = forward(variables, z[:1], train)
  for latent in (other, alone):
    first, found = (
      jax.tree.map(lambda x: x[:1], (x.quantized, x.codes))
      for x in (together, latent)
    )
    assert_same(found, first)


@pytest.mark.parametrize(
  'inner',
  [
    FSQ(D=D, levels=(4, 5)),
    Lasers(D=D, K=K, S=2),
    Residual(D=D, depth=2, inner=INNER),
  ],
  ids=lambda x: type(x).__name__,
)
def test_any_discrete_bottleneck_goes_inside(inner, z):
  module = mqvae(inner)
  variables = start(module, z)
  codes = module.apply(variables, z, method='encode')
  latent = module.apply(variables, z, train=False)
  assert_same(latent.codes, codes)
  assert_same(latent.quantized, module.apply(variables, codes, method='decode'))
  indices = module.apply(variables, codes, method='indices')
  assert indices.min() >= 0
  assert indices.max() < module.symbols
  assert indices.shape[:3] == (B, 1, M)
  assert module.symbols == inner.symbols
  for leaf in jax.tree.leaves(codes):
    assert leaf.shape[0] == B


def test_indices_need_no_variables(variables, z):
  codes = forward(variables, z).codes
  np.testing.assert_array_equal(mqvae().indices(codes), codes.inner)


def test_residual_levels_choose_sites_of_their_own(z):
  module = Residual(D=D, depth=2, inner=mqvae())
  variables = start(module, z)
  codes = module.apply(variables, z, method='encode')
  latent = module.apply(variables, z, train=False)
  assert_same(latent.quantized, module.apply(variables, codes, method='decode'))
  names = {'inner', 'copies_1'}
  assert set(variables['params']) == set(variables['codebook']) == names


@pytest.mark.parametrize('scale, offset', [(1e3, 0), (1, 1e4), (0, 1), (0, 0)])
def test_nothing_is_nan(variables, z, scale, offset):
  latent, updates = forward(
    variables, scale * z + offset, train=True, mutable=['codebook']
  )
  leaves = jax.tree.leaves((latent, updates))
  assert all(np.isfinite(x).all() for x in leaves)


# Padding


def half(rows):
  return jnp.zeros((B, SIDE, SIDE), bool).at[:, :rows].set(True)


def test_padding_is_never_kept_nor_read(variables, z):
  mask = half(2)
  other = jnp.where(mask[..., None], z, 7.0 * z[::-1] + 1.0)
  one, two = (forward(variables, x, train=True, mask=mask) for x in (z, other))
  assert_same(one.codes, two.codes)
  assert_same((one.losses, one.stats), (two.losses, two.stats))
  assert_same(one.quantized[:, :2], two.quantized[:, :2])
  # As the networks see it, the image ends where padding begins.
  scores = scores_of(variables['params'], z[:, :2]).reshape(B, -1)
  best = np.sort(np.argsort(-scores, axis=1)[:, : M // 2], axis=1)
  np.testing.assert_array_equal(one.codes.positions[:, : M // 2], best)
  assert (one.codes.positions[:, M // 2 :] == SIDE**2).all()


def test_an_image_keeps_its_share_of_what_is_no_padding(variables, z):
  mask = jnp.zeros((B, SIDE, SIDE), bool).at[:, 1, :3].set(True)
  mask = mask.at[0].set(True)
  other = jnp.where(mask[..., None], z, 7.0 * z[::-1] + 1.0)
  found = [
    forward(variables, x, train=True, mask=mask, mutable=['codebook'])
    for x in (z, other)
  ]
  (one, codebook), (two, other_codebook) = found
  # One of three sites, and four of sixteen.
  assert (np.isin(one.codes.positions[1:], [4, 5, 6]).sum(axis=1) == 1).all()
  assert (one.codes.positions < SIDE**2).sum() == 4 + 3 * 1
  assert_same((one.losses, one.stats), (two.losses, two.stats))
  assert_same(codebook, other_codebook)
  assert_same(one.quantized[mask], two.quantized[mask])
  # The loss is a mean over what is kept.
  _, sites = choose(variables, z, mask)
  codes = np.asarray(variables['codebook']['inner']['codes'])
  errors = ((sites - codes[one.codes.inner[:, 0]]) ** 2).mean(axis=-1)
  expected = (errors[0].sum() + errors[1:, 0].sum()) / 7
  np.testing.assert_allclose(one.losses['commitment'], expected, rtol=1e-4)


def test_no_padding_is_no_mask(variables, z):
  masked = forward(variables, z, train=True, mask=half(SIDE))
  assert_same(masked.quantized, forward(variables, z, train=True).quantized)


def test_codes_are_arrays_and_the_sides_of_the_map(variables, z):
  codes = forward(variables, z).codes
  names = [x.name for x in dataclasses.fields(codes)]
  assert names == ['positions', 'inner', 'height', 'width']
  assert len(jax.tree.leaves(codes)) == 2
  assert (codes.height, codes.width) == (SIDE, SIDE)
  assert codes.positions.shape == (B, M)
  assert codes.inner.shape == (B, 1, M)
