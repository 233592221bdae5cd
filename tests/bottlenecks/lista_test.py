import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax import coding
from lasers_jax.bottlenecks.lista import Lista
from lasers_jax.coding.ista import dct_dictionary, ista, largest_eigenvalue
from lasers_jax.coding.scalar import Levels, update_levels
from tests.bottlenecks.rows import assert_close

B, SIDE, D, K = 4, 4, 8, 16


@pytest.fixture(scope='module')
def z():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


@pytest.fixture(scope='module')
def variables():
  dictionary = coding.random_dictionary(jax.random.key(0), (D, K))
  return {
    'params': {'dictionary': dictionary, 'ratio': jnp.float32(1.2)},
    'codebook': {'coefficients': {'sizes': jnp.full(K, 3.0)}},
  }


def with_levels(variables, levels):
  """With other levels, that nothing has been near to."""
  levels = jnp.asarray(levels, jnp.float32)
  zeros = jnp.zeros_like(levels)
  coefficients = {
    **variables['codebook']['coefficients'],
    'levels': Levels(levels, zeros, zeros),
  }
  return {**variables, 'codebook': {'coefficients': coefficients}}


def module_of(**fields):
  return Lista(**{'D': D, 'K': K, 'iterations': 5, **fields})


def expected_codes(z, variables, penalty=0.1):
  atoms = variables['params']['dictionary']
  c = variables['params']['ratio'] * largest_eigenvalue(atoms)
  return ista(z.reshape(-1, D), atoms, c, penalty, 5)


def test_codes_are_those_of_the_steps(z, variables):
  codes = module_of().apply(variables, z, method='encode')
  assert codes.shape == (B, SIDE, SIDE, K)
  assert codes.dtype == jnp.float32
  assert_close(codes.reshape(-1, K), expected_codes(z, variables))
  quantized = module_of().apply(variables, codes, method='decode')
  dictionary = np.asarray(variables['params']['dictionary'])
  assert_close(quantized, np.asarray(codes) @ dictionary.T)


def test_training_is_evaluation(z, variables):
  latents = [module_of().apply(variables, z, train=x) for x in (False, True)]
  jax.tree.map(np.testing.assert_array_equal, *latents)


@pytest.mark.parametrize('learning', ['gradient', 'fixed'])
def test_the_dictionary_starts_as_the_dct(z, learning):
  module = module_of(learning=learning)
  drawn = module.init(jax.random.key(0), z, train=False)
  home = 'params' if learning == 'gradient' else 'codebook'
  np.testing.assert_array_equal(drawn[home]['dictionary'], dct_dictionary(D, K))
  assert drawn['params']['ratio'] == 1
  assert ('dictionary' in drawn['params']) == (learning == 'gradient')


def test_the_loss_reaches_encoder_dictionary_and_constant(z, variables):
  def loss(params, z):
    latent = module_of().apply({**variables, 'params': params}, z, train=True)
    return latent.losses['latent']

  def expected(params, z):
    signals, atoms = z.reshape(-1, D), params['dictionary']
    code = expected_codes(z, {'params': params})
    return jnp.mean((signals - code @ atoms.T) ** 2)

  found, wanted = (
    jax.value_and_grad(x, (0, 1))(variables['params'], z)
    for x in (loss, expected)
  )
  # Of the dictionary, the part along the sphere: the atoms are normalized.
  atoms = variables['params']['dictionary']
  gradient = wanted[1][0]['dictionary']
  radial = jnp.sum(atoms * gradient, axis=0, keepdims=True)
  wanted[1][0]['dictionary'] = gradient - atoms * radial
  assert_close(found, wanted)
  assert all(np.any(x != 0) for x in jax.tree.leaves(found[1]))


def test_the_gradient_of_the_decoder_goes_through_the_steps(z, variables):
  c = jax.random.normal(jax.random.key(3), z.shape)

  def total(z):
    return jnp.sum(module_of().apply(variables, z, train=True).quantized * c)

  def expected(z):
    rows = expected_codes(z, variables) @ variables['params']['dictionary'].T
    return jnp.sum(rows * c.reshape(-1, D))

  assert_close(jax.grad(total)(z), jax.grad(expected)(z))


@pytest.mark.parametrize('ratio', [0.0, -3.0, 0.5])
def test_the_constant_stays_where_steps_converge(z, variables, ratio):
  params = {**variables['params'], 'ratio': jnp.float32(ratio)}
  module = module_of(iterations=100)
  latent = module.apply({**variables, 'params': params}, z, train=False)
  assert latent.stats['relative_error'] < 1


def test_sparser_by_a_larger_penalty(z, variables):
  active = [
    module_of(penalty=x).apply(variables, z, train=False).stats['active']
    for x in (0.0, 0.1, 0.5, 1.0, 100.0)
  ]
  assert active[0] == K
  assert active[-1] == 0
  assert np.all(np.diff(active) < 0)


def test_averaged_weights_are_normalized(z, variables):
  params = dict(variables['params'])
  params['dictionary'] = 0.5 * params['dictionary']
  latents = [
    module_of().apply(x, z, train=False)
    for x in (variables, {**variables, 'params': params})
  ]
  assert_close(*latents)


# Sizes and levels


def test_levels_and_sizes_follow_what_is_kept(z, variables):
  module = module_of(keep=2, coefficient_bits=2, decay=0.9)
  levels = np.array([-2, -0.5, 0.5, 2], np.float32)
  known = with_levels(variables, levels)
  codes = module.apply(known, z, method='encode')
  _, updates = module.apply(known, z, train=True, mutable=['codebook'])
  exact = np.asarray(expected_codes(z, variables)).reshape(B, SIDE, SIDE, K)
  kept = np.take_along_axis(exact, np.asarray(codes.atoms), axis=-1)
  found = updates['codebook']['coefficients']
  expected = update_levels(
    known['codebook']['coefficients']['levels'],
    kept / 3.0,
    codes.coefficients,
    jnp.ones(kept.shape),
    0.9,
  )
  assert_close(found['levels'], expected)
  for atom in range(K):
    own = kept[np.asarray(codes.atoms) == atom]
    if len(own):
      share = 1 - 0.99 ** len(own)
      square = 9 + share * (np.mean(own**2) - 9)
      np.testing.assert_allclose(found['sizes'][atom], square**0.5, rtol=1e-4)
  _, same = module.apply(known, z, train=False, mutable=['codebook'])
  assert_close(same['codebook'], known['codebook'])


def test_they_start_with_a_first_batch(z, variables):
  module = module_of(keep=2, coefficient_bits=4)
  _, fitted = module.apply(
    variables, z, method='initialize', mutable=['codebook']
  )
  fitted = fitted['codebook']['coefficients']
  exact = np.asarray(expected_codes(z, variables))
  kept = -np.sort(-np.abs(exact), axis=1)[:, :2]
  size = np.sqrt(np.mean(kept**2))
  np.testing.assert_allclose(fitted['sizes'], np.full(K, size), rtol=1e-4)
  assert np.all(np.diff(fitted['levels'].values) > 0)


def test_atoms_have_their_usual_size(variables):
  known = with_levels(variables, np.linspace(-1, 1, 256))
  for module, size in (module_of(), 1.0), (module_of(keep=2), 3.0):
    atoms = module.apply(known, method='atoms')
    assert atoms.shape == (K, 1, 1, D)
    assert_close(atoms[:, 0, 0], size * variables['params']['dictionary'].T)


# What is kept


def test_kept_coefficients_are_the_nearest_levels(z, variables):
  levels = np.linspace(-1.5, 1.5, 64)
  module = module_of(keep=3, coefficient_bits=6)
  known = with_levels(variables, levels)
  codes = module.apply(known, z, method='encode')
  assert codes.atoms.shape == codes.coefficients.shape == (B, SIDE, SIDE, 3)
  assert codes.atoms.dtype == codes.coefficients.dtype == jnp.int32
  exact = np.asarray(expected_codes(z, variables)).reshape(B, SIDE, SIDE, K)
  order = np.argsort(-np.abs(exact), axis=-1, kind='stable')[..., :3]
  np.testing.assert_array_equal(codes.atoms, order)
  kept = np.take_along_axis(exact, order, axis=-1)
  expected = np.abs(kept[..., None] / 3.0 - levels).argmin(axis=-1)
  np.testing.assert_array_equal(codes.coefficients, expected)
  indices = module.apply(known, codes, method='indices')
  np.testing.assert_array_equal(indices, codes.atoms)
  multiples = module.apply(known, z, method='multiples')
  assert_close(multiples, (kept / 3.0).reshape(-1, 3))

  quantized = module.apply(known, codes, method='decode')
  chosen = np.asarray(variables['params']['dictionary']).T[order]
  decoded = np.einsum('...m,...md->...d', 3 * levels[expected], chosen)
  np.testing.assert_allclose(quantized, decoded, atol=1e-5)


def test_keeping_is_for_evaluation(z, variables):
  free, kept = module_of(), module_of(keep=2)
  unkept = free.apply(variables, z, train=True).quantized
  variables = with_levels(variables, np.linspace(-1, 1, 256))
  latent = kept.apply(variables, z, train=True)
  np.testing.assert_array_equal(latent.quantized, unkept)
  codes = kept.apply(variables, z, method='encode')
  jax.tree.map(np.testing.assert_array_equal, latent.codes, codes)
  plain = kept.apply(variables, z, train=False)
  decoded = kept.apply(variables, codes, method='decode')
  np.testing.assert_array_equal(plain.quantized, decoded)
  assert set(plain.stats) == {'relative_error', 'active', 'usage', 'perplexity'}
  assert plain.stats['relative_error'] > latent.stats['relative_error']


def test_what_is_kept_comes_near_to_all(z, variables):
  free = module_of().apply(variables, z, train=False).quantized
  gaps = []
  for keep, bits in ((1, 8), (6, 8), (K, 6), (K, 12)):
    module = module_of(keep=keep, coefficient_bits=bits)
    known = with_levels(variables, np.linspace(-2, 2, 2**bits))
    quantized = module.apply(known, z, train=False).quantized
    gaps.append(np.abs(quantized - free).mean())
  assert gaps[0] > gaps[1] > gaps[2] > gaps[3]
  assert gaps[3] < 3e-3


@pytest.mark.parametrize(
  'fields, bits, symbols',
  [
    ({}, None, 0),
    ({'keep': 5}, 5 * (9 + 8), 512),
    ({'keep': 4, 'coefficient_bits': 5}, 4 * (9 + 5), 512),
    ({'keep': 2, 'K': 513}, 2 * (10 + 8), 513),
  ],
)
def test_bits_per_site(fields, bits, symbols):
  module = Lista(**{'K': 512, **fields})
  assert (module.bits_per_site, module.symbols) == (bits, symbols)


# Edges


@pytest.mark.parametrize('keep', [None, 2])
def test_masked_sites_count_for_nothing(z, variables, keep):
  mask = jnp.zeros((B, SIDE, SIDE), bool).at[:, :2].set(True)
  other = jnp.where(mask[..., None], z, 7.0 * z[::-1] + 1)
  module = module_of(keep=keep)
  if keep:
    variables = with_levels(variables, np.linspace(-1, 1, 256))

  def train(z, mask=None):
    latent, updates = module.apply(
      variables, z, train=True, mask=mask, mutable=['codebook']
    )
    return latent.losses, latent.stats, updates

  assert_close(train(z, mask), train(other, mask))
  assert_close(train(z, mask), train(z[:, :2]))


@pytest.mark.parametrize('keep', [None, 2])
def test_bfloat16_and_extremes(z, variables, keep):
  module, half = module_of(keep=keep), z.astype(jnp.bfloat16)
  if keep:
    variables = with_levels(variables, np.linspace(-1, 1, 256))
  latent = module.apply(variables, half, train=True)
  assert latent.quantized.dtype == jnp.bfloat16
  exact = module.apply(variables, half.astype('f4'), method='encode')
  jax.tree.map(np.testing.assert_array_equal, latent.codes, exact)
  nothing = jax.tree.map(jnp.zeros_like, variables)
  for x, start in ((0 * z, variables), (1e3 * z, variables), (z, nothing)):
    leaves = jax.tree.leaves(module.apply(start, x, train=False))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize(
  'fields, message',
  [
    (
      {'learning': 'online'},
      "learning must be one of ('gradient', 'fixed'): 'online'",
    ),
    ({'keep': 17}, 'keep must be None or from 1 to K = 16, got 17'),
  ],
)
def test_check(fields, message):
  with pytest.raises(ValueError) as error:
    module_of(**fields).check()
  assert str(error.value) == message
