"""Levels of codes for what others leave, and their dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.bottlenecks.rows import (
  DEPTH,
  INNER,
  SIDE,
  B,
  D,
  K,
  assert_close,
  assert_same,
  home,
  names,
  residual,
  standard_normal,
  started,
  train_once,
  under,
)


@pytest.fixture(scope='module')
def z():
  return standard_normal((B, SIDE, SIDE, D))


# Residual


def partial_sums(variables, z, depth=DEPTH):
  """The codes of each level, and their sums up to it: [depth, N, D]."""
  rest = np.asarray(z, np.float64).reshape(-1, D)
  chosen, sums, total = [], [], 0
  for name in names(depth):
    arrays = under(variables, name)
    codes = np.asarray(arrays[home(arrays)]['codes'], np.float64)
    chosen.append(cdist(rest, codes).argmin(axis=1))
    rest, total = rest - codes[chosen[-1]], total + codes[chosen[-1]]
    sums.append(total)
  return np.array(chosen), np.array(sums)


@pytest.mark.parametrize('learning', ['ema', 'loss'])
def test_each_level_codes_what_is_left(z, learning):
  module = residual(INNER[learning])
  variables = started(module, z)
  latent, _ = train_once(module, variables, z)
  chosen, sums = partial_sums(variables, z)
  codes = np.stack(latent.codes).reshape(DEPTH, -1)
  np.testing.assert_array_equal(codes, chosen)
  assert_close(latent.quantized.reshape(-1, D), sums[-1])
  # RQ-VAE equation 8: of the partial sums, here a mean over the levels.
  errors = ((np.asarray(z).reshape(-1, D) - sums) ** 2).mean(axis=(1, 2))
  assert np.all(np.diff(errors) < 0)
  for loss in latent.losses.values():
    np.testing.assert_allclose(loss, errors.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    latent.stats['relative_error'], errors[-1] / np.mean(z**2), rtol=1e-4
  )


def test_levels_of_sparse_codes_come_nearer(z):
  module = residual(INNER['lasers'])
  variables = started(module, z)
  errors = [
    residual(INNER['lasers'], depth=depth)
    .apply(variables, z, train=False)
    .stats['relative_error']
    for depth in (1, 2, 3)
  ]
  assert errors[2] < 0.5 * errors[1] < 0.25 * errors[0]


def test_gradients_of_residual_levels(z):
  module = residual()
  variables, n = started(module, z), z[..., 0].size
  c = jax.random.normal(jax.random.key(3), z.shape)

  def output(params, z):
    latent = module.apply({**variables, 'params': params}, z, train=True)
    return {'decoder': jnp.sum(latent.quantized * c), **latent.losses}

  values, pull = jax.vjp(output, variables['params'], z)
  gradients = {
    name: pull({other: jnp.float32(other == name) for other in values})
    for name in values
  }
  # The decoder's passes straight through, once however many levels there are.
  assert_same(gradients['decoder'][1], c)
  assert not any(np.any(x) for x in jax.tree.leaves(gradients['decoder'][0]))
  # The commitment draws z to every partial sum, and no code.
  chosen, sums = partial_sums(variables, z)
  errors = np.asarray(z).reshape(-1, D) - sums
  expected = 2 * errors.sum(axis=0) / (DEPTH * n * D)
  to_params, to_z = gradients['commitment']
  assert_close(to_z.reshape(-1, D), expected)
  assert not any(np.any(x) for x in jax.tree.leaves(to_params))
  # The codebook loss moves each level by its own error, and not z.
  to_params, to_z = gradients['codebook']
  assert not np.any(to_z)
  for i, name in enumerate(names(DEPTH)):
    expected = np.zeros((K, D))
    np.add.at(expected, chosen[i], -2 * errors[i] / (DEPTH * n * D))
    assert_close(to_params[name]['codes'], expected)


def test_levels_learn_from_what_is_left_to_them(z):
  module = residual(INNER['ema'])
  variables = started(module, z)
  _, codebook = train_once(module, variables, z)
  _, sums = partial_sums(variables, z)
  left = np.concatenate([np.zeros_like(sums[:1]), sums[:-1]])
  for i, name in enumerate(names(DEPTH)):
    rest = jnp.asarray(z - left[i].reshape(z.shape), 'f4')
    _, expected = train_once(INNER['ema'], under(variables, name), rest)
    assert_close(codebook[name], expected, 1e-4)


# Dropout of levels


def dropped(share=1.0, inner=INNER['loss']):
  return residual(inner, dropout=share)


def levels_used(variables, quantized, z):
  """How many levels each image has, read from its quantized values: [B]."""
  _, sums = partial_sums(variables, z)
  sums = sums.reshape(DEPTH, *z.shape)
  gaps = np.abs(sums - np.asarray(quantized)[None]).max(axis=(2, 3, 4))
  assert np.all(gaps.min(axis=0) < 1e-4)
  return gaps.argmin(axis=0) + 1


def test_dropout_uses_the_first_levels_of_an_image(z):
  variables = started(residual(), z)
  for seed in range(3):
    latent, _ = train_once(dropped(), variables, z, seed=seed)
    assert len(set(levels_used(variables, latent.quantized, z))) > 1
    # The codes are all there, as in evaluation.
    codes = dropped().apply(variables, z, method='encode')
    assert_same(latent.codes, codes)


def drawn_levels(variables, shape, share=1.0, seed=3):
  return dropped(share).apply(
    variables,
    jnp.zeros(shape),
    method='_draw_levels',
    rngs={'bottleneck': jax.random.key(seed)},
  )


@pytest.mark.parametrize('share', [1.0, 0.4])
def test_dropout_draws_levels_with_equal_odds(z, share):
  variables = started(residual(), z)
  levels = drawn_levels(variables, (3000, 1, 1, D), share)
  counts = np.bincount(levels.ravel(), minlength=DEPTH + 1) / 3000
  expected = np.array([0, 1, 1, 1]) * share / DEPTH
  expected[DEPTH] += 1 - share
  np.testing.assert_allclose(counts, expected, atol=0.04)


def test_dropout_takes_the_first_dimension_as_images(z):
  variables = started(residual(), z)
  for shape in ((20, 2, SIDE, SIDE, D), (20, SIDE, SIDE, D)):
    levels = np.asarray(drawn_levels(variables, shape))
    assert levels.shape == shape[:-1]
    rows = levels.reshape(20, -1)
    assert np.all(rows == rows[:, :1])
    assert len(set(rows[:, 0])) == DEPTH
  # Without leading dimensions there is one image.
  each = [
    drawn_levels(variables, (SIDE, SIDE, D), seed=seed) for seed in range(8)
  ]
  assert all(np.ptp(x) == 0 for x in each)
  assert len({int(x[0, 0]) for x in each}) > 1


def test_dropout_is_drawn_again_by_its_key_and_never_in_evaluation(z):
  variables = started(residual(), z)
  one, again, other = (
    train_once(dropped(), variables, z, seed=seed)[0] for seed in (3, 3, 4)
  )
  assert_same(one, again)
  assert np.any(one.quantized != other.quantized)
  plain = residual().apply(variables, z, train=False)
  assert_same(dropped().apply(variables, z, train=False), plain)


def test_dropout_averages_over_the_levels_in_use(z):
  variables = started(residual(), z)
  c = jax.random.normal(jax.random.key(3), z.shape)
  latent, codebook = train_once(dropped(), variables, z)
  used = levels_used(variables, latent.quantized, z)
  assert len(set(used)) > 1
  _, sums = partial_sums(variables, z)
  errors = (np.asarray(z)[None] - sums.reshape(DEPTH, *z.shape)) ** 2
  errors = errors.mean(axis=(2, 3, 4))
  counted = np.arange(DEPTH)[:, None] < used[None]
  for loss in latent.losses.values():
    np.testing.assert_allclose(loss, errors[counted].mean(), rtol=1e-5)
  # A level's statistics are of the images that use it.
  for i, name in enumerate(names(DEPTH)):
    rest = z if i == 0 else z - sums[i - 1].reshape(z.shape).astype('f4')
    mask = jnp.broadcast_to(counted[i][:, None, None], z.shape[:-1])
    _, expected = train_once(INNER['loss'], under(variables, name), rest, mask)
    assert_close(codebook[name], expected)

  def total(z):
    return jnp.sum(train_once(dropped(), variables, z)[0].quantized * c)

  assert_same(jax.grad(total)(z), c)


def test_dropout_counts_no_masked_sites(z):
  module, variables = dropped(), started(residual(), z)
  mask = jnp.zeros((B, SIDE, SIDE), bool).at[:, :2].set(True)
  whole, _ = train_once(module, variables, z, mask)
  part, _ = train_once(module, variables, z[:, :2])
  assert_close((whole.losses, whole.stats), (part.losses, part.stats))
  # A level that no image uses, and a batch where nothing counts.
  leaves = jax.tree.leaves(train_once(module, variables, z, mask & False))
  assert all(np.isfinite(x).all() for x in leaves)
