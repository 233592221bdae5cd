import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lasers_jax.bottlenecks import VQ
from lasers_jax.bottlenecks.continuous import Identity
from lasers_jax.bottlenecks.wrappers import Product, Residual
from tests.bottlenecks.rows import (
  INNER,
  SIDE,
  B,
  D,
  K,
  assert_close,
  assert_same,
  home,
  names,
  product,
  residual,
  standard_normal,
  started,
  train_once,
  under,
  written,
)


@pytest.fixture(scope='module')
def z():
  return standard_normal((B, SIDE, SIDE, D))


@pytest.fixture(params=['ema', 'lasers'])
def inner(request):
  return INNER[request.param]


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
  module, variables = wrap(D=D, inner=base, **count), started(base, z)
  wrapped = {home: {'inner': x} for home, x in variables.items()}
  mine, codebook = train_once(module, wrapped, z)
  theirs, expected = train_once(base, variables, z)
  assert_same(mine.replace(codes=mine.codes[0]), theirs)
  assert_same(codebook['inner'], expected)
  for name in ('bits_per_site', 'symbols', 'K', 'revive_every'):
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
  variables = started(module, z)
  codes = module.apply(variables, z, method='encode')
  latent, updates = module.apply(
    variables, z, train=False, mutable=['codebook']
  )
  assert_same(updates['codebook'], variables['codebook'])
  assert_same(latent.codes, codes)
  assert_same(latent.quantized, module.apply(variables, codes, method='decode'))


@pytest.mark.parametrize('make', [residual, product])
def test_indices_are_offset_by_the_symbols_before(z, inner, make):
  module = make(inner)
  variables = started(module, z)
  codes = module.apply(variables, z, method='encode')
  indices = np.asarray(module.apply(variables, codes, method='indices'))
  count = module.count
  assert module.symbols == count * K
  assert indices.dtype == np.int32
  assert module.bits_per_site == count * module.inner.bits_per_site
  for i in range(count):
    own = codes[i] if isinstance(inner, VQ) else codes[i].atoms
    np.testing.assert_array_equal(indices[..., i], own + i * K)
  atoms = module.apply(variables, method='atoms')
  assert atoms.shape == (module.symbols, 1, 1, D)


@pytest.mark.parametrize('make', [residual, product])
def test_bfloat16_is_coded_in_float32(z, make):
  module = make()
  variables, half = started(module, z), z.astype(jnp.bfloat16)
  for training in (False, True):
    latent = module.apply(variables, half, train=training)
    assert latent.quantized.dtype == jnp.bfloat16
    exact = module.apply(variables, half.astype('f4'), train=training)
    assert_same(latent.codes, exact.codes)
    assert_same(latent.quantized, exact.quantized.astype(jnp.bfloat16))


# Product


def test_each_slice_is_coded_by_itself(z, inner):
  module = product(inner)
  variables = started(module, z)
  latent, codebook = train_once(module, variables, z)
  parts = [
    train_once(module.inner, under(variables, name), part)
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
    lambda x: jnp.sum(train_once(module, variables, x)[0].quantized * c)
  )(z)
  assert_same(gradient, c)


def test_atoms_of_a_slice_are_zero_in_the_others(z):
  module = product()
  variables = started(module, z)
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
  variables = started(module, z)
  mask = jnp.zeros((B, SIDE, SIDE), bool).at[:, :2].set(True)
  other = jnp.where(mask[..., None], z, 7.0 * z[::-1] + 1)
  results = [train_once(module, variables, x, mask) for x in (z, other)]
  results.append(train_once(module, variables, z[:, :2]))
  one, *others = [(x.losses, x.stats, codebook) for x, codebook in results]
  for two in others:
    assert_close(one, two)


def with_dead(variables, dead):
  def kill(path, x):
    is_use = path[-1] == jax.tree_util.DictKey('use')
    return jnp.ones_like(x).at[dead].set(1e-6) if is_use else x

  return jax.tree_util.tree_map_with_path(kill, variables)


@pytest.mark.parametrize('make', [residual, product])
def test_dead_codes_of_every_copy_are_revived(z, inner, make):
  module = make(inner)
  variables = with_dead(started(module, z), 5)
  after = written(module, variables, z, 'revive')
  for name in names(module.count):
    before, now = under(variables, name), under(after, name)
    key = 'codes' if isinstance(inner, VQ) else 'dictionary'
    change = now[home(now)][key] - before[home(before)][key]
    axis = 1 if key == 'codes' else 0
    moved = np.flatnonzero(np.any(change != 0, axis=axis))
    assert 5 in moved
    assert now['codebook']['use'][5] == 1


@pytest.mark.parametrize('make', [residual, product])
def test_copies_start_unlike_each_other(z, make):
  variables = started(make(), z)['params']
  one, two = (variables[name]['codes'] for name in names(2))
  assert cdist(one, two).min() > 1e-3


def test_slices_may_have_levels(z):
  module = product(residual(INNER['loss'].clone(D=D // 2), depth=2))
  variables = started(module, z)
  codes = module.apply(variables, z, method='encode')
  latent = module.apply(variables, z, train=False)
  assert_same(latent.quantized, module.apply(variables, codes, method='decode'))
  assert len(jax.tree.leaves(variables['params'])) == 4
  assert (module.symbols, module.bits_per_site) == (4 * K, 4 * 4)
  indices = np.asarray(module.apply(variables, codes, method='indices'))
  assert indices.shape == (B, SIDE, SIDE, 2, 2)
  np.testing.assert_array_equal(indices // K, indices * 0 + [[0, 2], [1, 3]])


@pytest.mark.parametrize(
  'module, message',
  [
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
      product(VQ(D=4, K=1)),
      'K is 1: it must be a whole number, at least 2',
    ),
    (
      residual(Identity(D=D)),
      'inner must have discrete codes, and those of Identity are continuous',
    ),
  ],
)
def test_check(module, message):
  with pytest.raises(ValueError) as error:
    module.check()
  assert str(error.value) == message
