import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lasers_jax.bottlenecks import VQ, Lasers
from lasers_jax.bottlenecks.continuous import Identity
from lasers_jax.bottlenecks.wrappers import Product, Residual

B, SIDE, D, K, DEPTH = 8, 4, 8, 16, 3
# What a wrapper is made of: VQ in both ways of learning, and sparse codes.
INNER = {
  'ema': VQ(D=D, K=K),
  'loss': VQ(D=D, K=K, learning='loss'),
  'lasers': Lasers(D=D, K=K, S=2),
}


@pytest.fixture(scope='module')
def z():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


@pytest.fixture(params=['ema', 'lasers'])
def inner(request):
  return INNER[request.param]


def residual(inner=INNER['loss'], **fields):
  return Residual(**{'D': D, 'inner': inner, 'depth': DEPTH, **fields})


def product(inner=INNER['loss'], groups=2, **fields):
  inner = inner.clone(D=D // groups)
  return Product(**{'D': D, 'inner': inner, 'groups': groups, **fields})


def start(module, z):
  drawn = module.init(jax.random.key(1), z, train=False)
  return {**drawn, **written(module, drawn, z, 'initialize')}


def written(module, variables, z, method):
  _, changed = module.apply(
    variables,
    z,
    method=method,
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(2)},
  )
  return changed


def train(module, variables, z, mask=None, seed=3):
  latent, updates = module.apply(
    variables,
    z,
    train=True,
    mask=mask,
    mutable=['codebook'],
    rngs={'bottleneck': jax.random.key(seed)},
  )
  return latent, updates['codebook']


def names(count):
  return ['inner', *(f'copies_{i}' for i in range(1, count))]


def under(variables, name):
  """The variables of one copy."""
  return {home: arrays[name] for home, arrays in variables.items()}


def assert_same(one, two):
  assert jax.tree.structure(one) == jax.tree.structure(two)
  jax.tree.map(np.testing.assert_array_equal, one, two)


def assert_near(one, two, tolerance=1e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance),
    one,
    two,
  )


# A single copy is the base


@pytest.mark.parametrize('wrap', [Residual, Product])
@pytest.mark.parametrize(
  'base',
  [
    INNER['ema'],
    INNER['loss'].clone(gradient='rotation', synchronized=0.5),
  ],
)
def test_one_copy_is_the_base(z, wrap, base):
  count = {'depth' if wrap is Residual else 'groups': 1}
  module, variables = wrap(D=D, inner=base, **count), start(base, z)
  wrapped = {home: {'inner': x} for home, x in variables.items()}
  mine, codebook = train(module, wrapped, z)
  theirs, expected = train(base, variables, z)
  assert_same(mine.replace(codes=mine.codes[0]), theirs)
  assert_same(codebook['inner'], expected)
  for name in ('bits_per_site', 'symbols', 'K', 'revive_every', 'patch_side'):
    assert getattr(module, name) == getattr(base, name)
  atoms = module.apply(wrapped, method='atoms')
  assert_same(atoms, base.apply(variables, method='atoms'))

  c = jax.random.normal(jax.random.key(3), z.shape)

  def gradients(module, variables):
    def total(params, z):
      latent = module.apply({**variables, 'params': params}, z, train=True)
      return jnp.sum(latent.quantized * c) + sum(latent.losses.values())

    return jax.grad(total, (0, 1))(variables.get('params', {}), z)

  mine, theirs = gradients(module, wrapped), gradients(base, variables)
  assert_same(mine[0].get('inner', {}), theirs[0])
  assert_same(mine[1], theirs[1])


# Coding


@pytest.mark.parametrize('make', [residual, product])
def test_decoded_codes_are_the_forward_pass(z, inner, make):
  module = make(inner)
  variables = start(module, z)
  codes = module.apply(variables, z, method='encode')
  latent, updates = module.apply(
    variables, z, train=False, mutable=['codebook']
  )
  assert_same(updates['codebook'], variables['codebook'])
  assert_same(latent.codes, codes)
  assert_same(
    latent.quantized, module.apply(variables, codes, method='decode')
  )


@pytest.mark.parametrize('make', [residual, product])
def test_indices_are_offset_by_the_symbols_before(z, inner, make):
  module = make(inner)
  variables = start(module, z)
  codes = module.apply(variables, z, method='encode')
  indices = np.asarray(module.apply(variables, codes, method='indices'))
  count = module.count
  assert module.symbols == count * K and indices.dtype == np.int32
  assert module.bits_per_site == count * module.inner.bits_per_site
  for i in range(count):
    own = codes[i] if isinstance(inner, VQ) else codes[i].atoms
    np.testing.assert_array_equal(indices[..., i], own + i * K)
  atoms = module.apply(variables, method='atoms')
  assert atoms.shape == (module.symbols, 1, 1, D)


@pytest.mark.parametrize('make', [residual, product])
def test_bfloat16_is_coded_in_float32(z, make):
  module = make()
  variables, half = start(module, z), z.astype(jnp.bfloat16)
  for training in (False, True):
    latent = module.apply(variables, half, train=training)
    assert latent.quantized.dtype == jnp.bfloat16
    exact = module.apply(variables, half.astype('f4'), train=training)
    assert_same(latent.codes, exact.codes)
    assert_same(latent.quantized, exact.quantized.astype(jnp.bfloat16))


# Residual


def partial_sums(variables, z, depth=DEPTH):
  """The codes of each level, and their sums up to it: [depth, N, D]."""
  rest = np.asarray(z, np.float64).reshape(-1, D)
  chosen, sums, total = [], [], 0
  for name in names(depth):
    arrays = under(variables, name)
    codes = np.asarray(arrays[_home(arrays)]['codes'], np.float64)
    chosen.append(cdist(rest, codes).argmin(axis=1))
    rest, total = rest - codes[chosen[-1]], total + codes[chosen[-1]]
    sums.append(total)
  return np.array(chosen), np.array(sums)


def _home(arrays):
  return 'params' if 'params' in arrays else 'codebook'


@pytest.mark.parametrize('learning', ['ema', 'loss'])
def test_each_level_codes_what_is_left(z, learning):
  module = residual(INNER[learning])
  variables = start(module, z)
  latent, _ = train(module, variables, z)
  chosen, sums = partial_sums(variables, z)
  codes = np.stack(latent.codes).reshape(DEPTH, -1)
  np.testing.assert_array_equal(codes, chosen)
  assert_near(latent.quantized.reshape(-1, D), sums[-1])
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
  variables = start(module, z)
  errors = [
    residual(INNER['lasers'], depth=depth)
    .apply(variables, z, train=False)
    .stats['relative_error']
    for depth in (1, 2, 3)
  ]
  assert errors[2] < 0.5 * errors[1] < 0.25 * errors[0]


def test_gradients_of_residual_levels(z):
  module = residual()
  variables, n = start(module, z), z[..., 0].size
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
  assert_near(to_z.reshape(-1, D), expected)
  assert not any(np.any(x) for x in jax.tree.leaves(to_params))
  # The codebook loss moves each level by its own error, and not z.
  to_params, to_z = gradients['codebook']
  assert not np.any(to_z)
  for i, name in enumerate(names(DEPTH)):
    expected = np.zeros((K, D))
    np.add.at(expected, chosen[i], -2 * errors[i] / (DEPTH * n * D))
    assert_near(to_params[name]['codes'], expected)


def test_levels_learn_from_what_is_left_to_them(z):
  module = residual(INNER['ema'])
  variables = start(module, z)
  _, codebook = train(module, variables, z)
  _, sums = partial_sums(variables, z)
  left = np.concatenate([np.zeros_like(sums[:1]), sums[:-1]])
  for i, name in enumerate(names(DEPTH)):
    rest = jnp.asarray(z - left[i].reshape(z.shape), 'f4')
    _, expected = train(INNER['ema'], under(variables, name), rest)
    assert_near(codebook[name], expected, 1e-4)


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
  variables = start(residual(), z)
  for seed in range(3):
    latent, _ = train(dropped(), variables, z, seed=seed)
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
  variables = start(residual(), z)
  levels = drawn_levels(variables, (3000, 1, 1, D), share)
  counts = np.bincount(levels.ravel(), minlength=DEPTH + 1) / 3000
  expected = np.array([0, 1, 1, 1]) * share / DEPTH
  expected[DEPTH] += 1 - share
  np.testing.assert_allclose(counts, expected, atol=0.04)


def test_dropout_takes_the_first_dimension_as_images(z):
  variables = start(residual(), z)
  for shape in ((20, 2, SIDE, SIDE, D), (20, SIDE, SIDE, D)):
    levels = np.asarray(drawn_levels(variables, shape))
    assert levels.shape == shape[:-1]
    rows = levels.reshape(20, -1)
    assert np.all(rows == rows[:, :1]) and len(set(rows[:, 0])) == DEPTH
  # Without leading dimensions there is one image.
  each = [
    drawn_levels(variables, (SIDE, SIDE, D), seed=seed) for seed in range(8)
  ]
  assert all(np.ptp(x) == 0 for x in each)
  assert len({int(x[0, 0]) for x in each}) > 1


def test_dropout_is_drawn_again_by_its_key_and_never_in_evaluation(z):
  variables = start(residual(), z)
  one, again, other = (
    train(dropped(), variables, z, seed=seed)[0] for seed in (3, 3, 4)
  )
  assert_same(one, again)
  assert np.any(one.quantized != other.quantized)
  plain = residual().apply(variables, z, train=False)
  assert_same(dropped().apply(variables, z, train=False), plain)


def test_dropout_averages_over_the_levels_in_use(z):
  variables = start(residual(), z)
  c = jax.random.normal(jax.random.key(3), z.shape)
  latent, codebook = train(dropped(), variables, z)
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
    _, expected = train(INNER['loss'], under(variables, name), rest, mask)
    assert_near(codebook[name], expected)

  def total(z):
    return jnp.sum(train(dropped(), variables, z)[0].quantized * c)

  assert_same(jax.grad(total)(z), c)


# Product


def test_each_slice_is_coded_by_itself(z, inner):
  module = product(inner)
  variables = start(module, z)
  latent, codebook = train(module, variables, z)
  parts = [
    train(module.inner, under(variables, name), part)
    for name, part in zip(names(2), jnp.split(z, 2, axis=-1), strict=True)
  ]
  quantized = [x.quantized for x, _ in parts]
  assert_same(latent.quantized, jnp.concatenate(quantized, axis=-1))
  assert_same(latent.codes, tuple(x.codes for x, _ in parts))
  assert_same(codebook, {n: x[1] for n, x in zip(names(2), parts, strict=True)})
  for name, loss in latent.losses.items():
    mean = np.mean([x.losses[name] for x, _ in parts])
    np.testing.assert_allclose(loss, mean, rtol=1e-6)
  # The mean over all channels, since slices are equal.
  error = np.mean((np.asarray(latent.quantized) - z) ** 2)
  np.testing.assert_allclose(latent.losses['commitment'], error, rtol=1e-5)
  np.testing.assert_allclose(
    latent.stats['relative_error'], error / np.mean(z**2), rtol=1e-5
  )
  c = jax.random.normal(jax.random.key(3), z.shape)
  gradient = jax.grad(
    lambda x: jnp.sum(train(module, variables, x)[0].quantized * c)
  )(z)
  assert_same(gradient, c)


def test_atoms_of_a_slice_are_zero_in_the_others(z):
  module = product()
  variables = start(module, z)
  atoms = module.apply(variables, method='atoms')[:, 0, 0]
  for i, name in enumerate(names(2)):
    own = atoms[i * K : (i + 1) * K]
    part = slice(i * D // 2, (i + 1) * D // 2)
    np.testing.assert_array_equal(
      own[:, part], variables['params'][name]['codes']
    )
    assert not np.any(np.delete(own, np.r_[part], axis=1))


# Both


@pytest.mark.parametrize('make', [residual, product])
def test_masked_sites_count_for_nothing(z, make):
  module = make(INNER['ema'])
  variables = start(module, z)
  mask = jnp.zeros((B, SIDE, SIDE), bool).at[:, :2].set(True)
  other = jnp.where(mask[..., None], z, 7.0 * z[::-1] + 1)
  results = [train(module, variables, x, mask) for x in (z, other)]
  results.append(train(module, variables, z[:, :2]))
  one, *others = [(x.losses, x.stats, codebook) for x, codebook in results]
  for two in others:
    assert_near(one, two)


def test_dropout_counts_no_masked_sites(z):
  module, variables = dropped(), start(residual(), z)
  mask = jnp.zeros((B, SIDE, SIDE), bool).at[:, :2].set(True)
  whole, _ = train(module, variables, z, mask)
  part, _ = train(module, variables, z[:, :2])
  assert_near((whole.losses, whole.stats), (part.losses, part.stats))
  # A level that no image uses, and a batch where nothing counts.
  leaves = jax.tree.leaves(train(module, variables, z, mask & False))
  assert all(np.isfinite(x).all() for x in leaves)


def with_dead(variables, dead):
  def kill(path, x):
    return x.at[dead].set(1e-6) if path[-1].key == 'use' else x

  return jax.tree_util.tree_map_with_path(kill, variables)


@pytest.mark.parametrize('make', [residual, product])
def test_dead_codes_of_every_copy_are_revived(z, inner, make):
  module = make(inner)
  variables = with_dead(start(module, z), 5)
  after = written(module, variables, z, 'revive')
  for name in names(module.count):
    before, now = under(variables, name), under(after, name)
    key = 'codes' if isinstance(inner, VQ) else 'dictionary'
    change = now[_home(now)][key] - before[_home(before)][key]
    axis = 1 if key == 'codes' else 0
    moved = np.flatnonzero(np.any(change != 0, axis=axis))
    assert 5 in moved
    assert now['codebook']['use'][5] == 1


@pytest.mark.parametrize('make', [residual, product])
def test_copies_start_unlike_each_other(z, make):
  variables = start(make(), z)['params']
  one, two = (variables[name]['codes'] for name in names(2))
  assert cdist(one, two).min() > 1e-3


def test_slices_may_have_levels(z):
  module = product(residual(INNER['loss'].clone(D=D // 2), depth=2))
  variables = start(module, z)
  codes = module.apply(variables, z, method='encode')
  latent = module.apply(variables, z, train=False)
  assert_same(
    latent.quantized, module.apply(variables, codes, method='decode')
  )
  assert len(jax.tree.leaves(variables['params'])) == 4
  assert (module.symbols, module.bits_per_site) == (4 * K, 4 * 4)
  indices = np.asarray(module.apply(variables, codes, method='indices'))
  assert indices.shape == (B, SIDE, SIDE, 2, 2)
  np.testing.assert_array_equal(indices // K, indices * 0 + [[0, 2], [1, 3]])


def test_a_patch_stays_a_patch(z):
  module = residual(Lasers(D=D, K=K, S=2, patch=2), depth=2, dropout=1.0)
  variables = module.init(jax.random.key(1), z, train=False)
  assert module.patch_side == 2
  assert module.bits_per_site == 2 * 2 * (4 + 8) / 4
  latent, _ = train(module, variables, z)
  assert latent.quantized.shape == z.shape
  assert latent.codes[1].atoms.shape == (B, SIDE // 2, SIDE // 2, 2)


@pytest.mark.parametrize(
  'module, message',
  [
    (residual(depth=0), 'depth must be at least 1, got 0'),
    (residual(dropout=1.5), 'dropout must be from 0 to 1, got 1.5'),
    (residual(VQ(D=4)), 'inner must have D = 8, as its levels do, got 4'),
    (
      Product(D=D, inner=VQ(D=3), groups=3),
      'groups must divide D = 8, got groups = 3',
    ),
    (
      Product(D=D, inner=VQ(D=D), groups=2),
      'inner must have D = 4, the width of a slice, got 8',
    ),
    (
      residual(Identity(D=D)),
      'inner must have discrete codes, and those of Identity are continuous',
    ),
    (product(VQ(D=4, K=1)), 'K must be at least 2, got K = 1'),
  ],
)
def test_check(module, message):
  with pytest.raises(ValueError) as error:
    module.check()
  assert str(error.value) == message
