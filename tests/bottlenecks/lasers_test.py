import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax import coding
from lasers_jax.bottlenecks import Lasers
from lasers_jax.coding import SparseCode

B, SIDE, D, K, S = 8, 4, 8, 16, 3


@pytest.fixture(scope='module')
def z():
  generator = np.random.default_rng(0)
  return jnp.asarray(3 * generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


@pytest.fixture(scope='module')
def variables(z):
  """Of learning 'gradient', started from z."""
  module = Lasers(D=D, K=K, S=S)
  drawn = module.init(jax.random.key(1), z, train=False)
  _, fitted = module.apply(
    drawn,
    z,
    method='initialize',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(2)},
  )
  return fitted


def code_of(z, dictionary, s=S) -> SparseCode:
  return coding.batch_omp(z.reshape(-1, D), dictionary, s)


def test_scales_start_as_the_largest_magnitudes(z, variables):
  dictionary = coding.normalize_atoms(variables['params']['dictionary'])
  coefficients = np.abs(code_of(z, dictionary).coefficients)
  np.testing.assert_allclose(
    variables['codebook']['scales'], coefficients.max(axis=0), rtol=1e-5
  )


def test_scales_follow_the_largest_magnitudes(z, variables):
  module = Lasers(D=D, K=K, S=S, decay=0.9)
  _, updates = module.apply(variables, 2 * z, train=True, mutable=['codebook'])
  # They double, and the scales move a tenth of the way.
  np.testing.assert_allclose(
    updates['codebook']['scales'],
    1.1 * variables['codebook']['scales'],
    rtol=1e-5,
  )


@pytest.mark.parametrize('bits, most', [(8, 127), (2, 1), (12, 2047)])
def test_coefficients_are_stored_as_integers(z, variables, bits, most):
  module = Lasers(D=D, K=K, S=S, coefficient_bits=bits)
  codes = module.apply(variables, z, method='encode')
  assert codes.coefficients.dtype == jnp.int32
  # The scales are those of this batch: its largest coefficient is the largest
  # integer, and nothing is clipped.
  assert np.abs(codes.coefficients).max() == most
  quantized = module.apply(variables, codes, method='decode')
  exact = module.clone(coefficient_bits=None).apply(variables, z, train=False)
  # Half a bin a coefficient, of S atoms of norm 1.
  bound = variables['codebook']['scales'].sum() / most / 2
  error = jnp.linalg.norm(quantized - exact.quantized, axis=-1)
  assert 0 < error.max() <= bound * 1.001


def test_coefficients_beyond_the_scales_are_clipped(z, variables):
  module = Lasers(D=D, K=K, S=S)
  codes = module.apply(variables, 100 * z, method='encode')
  assert np.abs(codes.coefficients).max() == 127


def test_fewer_atoms_than_were_trained_are_a_prefix(z, variables):
  whole, part = (
    Lasers(D=D, K=K, S=s).apply(variables, z, train=False) for s in (S, 2)
  )
  assert part.codes.atoms.shape == (B, SIDE, SIDE, 2)
  np.testing.assert_array_equal(part.codes.atoms, whole.codes.atoms[..., :2])
  assert part.stats['relative_error'] > whole.stats['relative_error']


def test_more_atoms_than_were_trained(z, variables):
  whole, more = (
    Lasers(D=D, K=K, S=s).apply(variables, z, train=False) for s in (S, S + 2)
  )
  np.testing.assert_array_equal(more.codes.atoms[..., :S], whole.codes.atoms)
  assert more.stats['relative_error'] < whole.stats['relative_error']
  # The added steps have the last scale: one bin is worth as much in each.
  module = Lasers(D=D, K=K, S=S + 2)
  one = SparseCode(jnp.zeros((1, 1, S + 2), jnp.int32), None)
  lengths = [
    jnp.linalg.norm(
      module.apply(
        variables,
        one._replace(coefficients=jax.nn.one_hot(jnp.array([[s]]), S + 2)),
        method='decode',
      )
    )
    for s in range(S + 2)
  ]
  scales = variables['codebook']['scales']
  expected = [*scales, scales[-1], scales[-1]]
  np.testing.assert_allclose(lengths, np.array(expected) / 127, rtol=1e-5)


def losses_of(variables, z, **fields):
  module = Lasers(D=D, K=K, **fields)
  return module.apply(variables, z, train=True).losses


def test_progressive_losses_are_means_over_the_prefixes(z, variables):
  each = [losses_of(variables, z, S=s) for s in (1, 2, 3)]
  progressive = losses_of(variables, z, S=3, progressive=True)
  for name, loss in progressive.items():
    mean = np.mean([x[name] for x in each])
    np.testing.assert_allclose(loss, mean, rtol=1e-5)
  assert progressive['commitment'] > each[2]['commitment']


def decoder_gradients(variables, z, c, **fields):
  """Of <quantized, c>: with respect to the dictionary and z."""
  module = Lasers(D=D, K=K, S=S, **fields)

  def total(params, z):
    latent = module.apply({**variables, 'params': params}, z, train=True)
    return jnp.sum(latent.quantized * c)

  params, pull = jax.grad(total, (0, 1))(variables['params'], z)
  return params['dictionary'], pull.reshape(-1, D)


def test_refit_passes_the_part_within_the_span_of_the_atoms(z, variables):
  c = jax.random.normal(jax.random.key(3), z.shape)
  _, pull = decoder_gradients(variables, z, c, gradient='refit')
  atoms = np.asarray(variables['params']['dictionary'], np.float64)
  chosen = np.asarray(code_of(z, atoms).atoms)
  for one, row, given in zip(pull, chosen, c.reshape(-1, D), strict=True):
    basis = np.linalg.qr(atoms[:, row])[0]
    np.testing.assert_allclose(one, basis @ (basis.T @ given), atol=1e-4)


def test_only_refit_carries_the_decoders_gradient_to_the_dictionary(
  z, variables
):
  c = jax.random.normal(jax.random.key(3), z.shape)
  straight, _ = decoder_gradients(variables, z, c)
  refit, _ = decoder_gradients(variables, z, c, gradient='refit')
  assert not np.any(straight)

  def total(dictionary):
    atoms = coding.normalize_atoms(dictionary)
    fit = coding.reconstruct(code_of(z, atoms), atoms)
    return jnp.sum(fit * c.reshape(-1, D))

  expected = jax.grad(total)(variables['params']['dictionary'])
  np.testing.assert_allclose(refit, expected, rtol=1e-4, atol=1e-3)


def online(variables):
  """The same dictionary as a statistic, with some past."""
  a = jnp.eye(K) + 0.1
  b = jnp.asarray(np.random.default_rng(1).standard_normal((D, K)), 'f4')
  dictionary = variables['params']['dictionary']
  return {
    'codebook': {
      **variables['codebook'],
      'dictionary': dictionary,
      'statistics': coding.OnlineStatistics(a, b),
    }
  }


def test_progressive_is_plain_where_there_is_one_atom(z, variables):
  plain, progressive = (
    losses_of(variables, z, S=1, progressive=x) for x in (False, True)
  )
  assert plain.keys() == progressive.keys()
  for name in plain:
    np.testing.assert_allclose(progressive[name], plain[name], rtol=1e-5)


def test_losses_are_those_of_the_dictionary_before_its_update(z, variables):
  """The last prefix's losses are the plain ones, in online learning too."""
  module = Lasers(D=D, K=K, S=S, learning='online', progressive=True)
  latent, updates = module.apply(
    online(variables), z, train=True, mutable=['codebook']
  )
  untouched = module.apply(online(variables), z, train=True)
  jax.tree.map(np.testing.assert_array_equal, latent, untouched)


def test_online_learning_is_the_algorithm_of_coding(z, variables):
  start = online(variables)
  module = Lasers(D=D, K=K, S=S, learning='online', forgetting=0.7)
  latent, updates = module.apply(start, z, train=True, mutable=['codebook'])

  before = start['codebook']
  atoms = coding.normalize_atoms(before['dictionary'])
  code = code_of(z, atoms)
  statistics = coding.update_statistics(
    before['statistics'], z.reshape(-1, D), code, 0.7
  )
  expected = coding.update_dictionary(atoms, statistics)
  after = updates['codebook']
  assert np.abs(expected - atoms).max() > 0.01
  np.testing.assert_array_equal(after['dictionary'], expected)
  for mine, theirs in zip(after['statistics'], statistics, strict=True):
    np.testing.assert_array_equal(mine, theirs)
  # The forward pass is that of the dictionary before the update.
  np.testing.assert_array_equal(
    latent.quantized.reshape(-1, D), coding.reconstruct(code, atoms)
  )


def test_use_is_a_moving_average_of_shares(z, variables):
  module = Lasers(D=D, K=K, S=S, decay=0.75)
  latent, updates = module.apply(
    variables, z, train=True, mutable=['codebook']
  )
  atoms = np.asarray(latent.codes.atoms)
  counts = np.bincount(atoms.ravel(), minlength=K)
  expected = 0.75 + 0.25 * counts * K / counts.sum()
  np.testing.assert_allclose(updates['codebook']['use'], expected, rtol=1e-5)


def test_averaged_weights_are_normalized(z, variables):
  shorter = {
    **variables,
    'params': {'dictionary': 0.5 * variables['params']['dictionary']},
  }
  module = Lasers(D=D, K=K, S=S, coefficient_bits=None)
  one, other = (
    module.apply(x, z, train=False).quantized for x in (variables, shorter)
  )
  np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'S': 17}, 'S must be from 1 to K = 16, got S = 17'),
    ({'S': 0}, 'S must be from 1 to K = 16, got S = 0'),
    (
      {'learning': 'gradints'},
      "learning must be one of ('gradient', 'online', 'fixed'): 'gradints'",
    ),
    (
      {'gradient': 'exact'},
      "gradient must be one of ('straight_through', 'refit'): 'exact'",
    ),
    ({'coefficient_bits': 1}, 'coefficient_bits must be None or at least 2'),
    ({'patch': 0}, 'patch must be at least 1, got 0'),
  ],
)
def test_check(fields, message):
  module = Lasers(D=D, K=K, **fields)
  with pytest.raises(ValueError) as error:
    module.check()
  assert str(error.value) == message
  if 'patch' not in fields:
    with pytest.raises(ValueError, match='must be'):
      module.init(jax.random.key(0), jnp.zeros((1, 2, 2, D)), train=False)
