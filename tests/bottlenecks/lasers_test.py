import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax import coding
from lasers_jax.bottlenecks import Lasers
from lasers_jax.coding import SparseCode
from tests.bottlenecks.rows import begin

B, SIDE, D, K, S = 8, 4, 8, 16, 3


@pytest.fixture(scope='module')
def z():
  generator = np.random.default_rng(0)
  return jnp.asarray(3 * generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


@pytest.fixture(scope='module')
def variables(z):
  """Of learning 'gradient', started from z."""
  return start(Lasers(D=D, K=K, S=S), z)


def start(module, z):
  return begin(module, z)[1]


def signals_of(z, variables):
  """What is coded: sites, about their mean in the batch that was first."""
  return z.reshape(-1, D) - variables['codebook']['mean'][None]


def code_of(z, variables, s=S) -> SparseCode:
  home = 'params' if 'params' in variables else 'codebook'
  atoms = coding.normalize_atoms(variables[home]['dictionary'])
  return coding.batch_omp(signals_of(z, variables), atoms, s)


def values_of(variables, atoms=0):
  """What the levels of these atoms stand for: [..., L]."""
  held = variables['codebook']['coefficients']
  sizes = np.asarray(held['sizes'])[atoms]
  return sizes[..., None] * np.asarray(held['levels'].values)


def test_the_mean_of_the_first_batch_is_taken_off(z):
  variables = start(Lasers(D=D, K=K, S=S), z)
  moved = start(Lasers(D=D, K=K, S=S), z + 5.0)
  change = moved['codebook']['mean'] - variables['codebook']['mean']
  np.testing.assert_allclose(change, 5.0, atol=1e-5)
  mean = np.asarray(z).reshape(-1, D).mean(axis=0)
  np.testing.assert_allclose(variables['codebook']['mean'], mean, atol=1e-5)
  one, other = (
    Lasers(D=D, K=K, S=S).apply(v, x, train=False).quantized
    for v, x in ((variables, z), (moved, z + 5.0))
  )
  np.testing.assert_allclose(other, one + 5.0, atol=0.02)


def test_the_mean_follows_what_counts_in_training(z, variables):
  mask = jnp.zeros(z.shape[:-1], bool).at[:3].set(True)
  _, updates = Lasers(D=D, K=K, S=S).apply(
    variables, z + 1.0, train=True, mask=mask, mutable=['codebook']
  )
  before = np.asarray(variables['codebook']['mean'])
  batch = np.asarray(z[:3] + 1.0).reshape(-1, D).mean(axis=0)
  np.testing.assert_allclose(
    updates['codebook']['mean'], 0.99 * before + 0.01 * batch, atol=1e-5
  )


def test_levels_start_at_the_quantiles_of_coefficients(z, variables):
  coefficients = np.asarray(code_of(z, variables).coefficients)
  shares = (np.arange(256) + 0.5) / 256
  np.testing.assert_allclose(
    values_of(variables), np.quantile(coefficients, shares), atol=1e-5
  )


def test_levels_follow_the_coefficients(z):
  module = Lasers(D=D, K=K, S=S, coefficient_bits=4)
  variables = updated = start(module, z)
  for _ in range(30):
    _, codebook = module.apply(updated, 2 * z, train=True, mutable=['codebook'])
    updated = {**updated, **codebook}
  assert (np.diff(values_of(updated)) >= 0).all()

  def lost(variables, z):
    return module.apply(variables, z, train=False).stats['relative_error']

  assert lost(variables, 2 * z) > 1.2 * lost(variables, z)
  assert lost(updated, 2 * z) < 1.05 * lost(variables, z)


@pytest.mark.parametrize('bits', [8, 1])
def test_coefficients_are_stored_as_integers(z, bits):
  module = Lasers(D=D, K=K, S=S, coefficient_bits=bits)
  variables = start(module, z)
  codes = module.apply(variables, z, method='encode')
  assert codes.coefficients.dtype == jnp.int32
  assert codes.coefficients.min() == 0
  assert codes.coefficients.max() == 2**bits - 1
  quantized = module.apply(variables, codes, method='decode')
  exact = module.clone(coefficient_bits=None).apply(variables, z, train=False)
  # Each coefficient is off by its distance to the nearest level.
  coefficients = exact.codes.coefficients
  levels = values_of(variables, np.asarray(codes.atoms))
  off = np.abs(np.asarray(coefficients)[..., None] - levels).min(axis=-1)
  error = jnp.linalg.norm(quantized - exact.quantized, axis=-1)
  assert error.max() > 0
  assert (error <= off.sum(axis=-1) + 1e-4).all()


def test_coefficients_beyond_the_levels_get_the_last(z, variables):
  codes = Lasers(D=D, K=K, S=S).apply(variables, 100 * z, method='encode')
  bins = np.asarray(codes.coefficients)
  assert ((bins == 0) | (bins == 255)).mean() > 0.9


def test_atoms_are_stored_as_a_set(z, variables):
  code = code_of(z, variables)
  codes = Lasers(D=D, K=K, S=S).apply(variables, z, method='encode')
  np.testing.assert_array_equal(
    codes.atoms.reshape(-1, S), np.sort(code.atoms, axis=1)
  )
  assert (np.diff(codes.atoms) > 0).all()


@pytest.mark.parametrize('s', [2, S + 2])
def test_other_than_the_trained_sparsity(z, variables, s):
  trained, other = (
    Lasers(D=D, K=K, S=n).apply(variables, z, train=False) for n in (S, s)
  )
  fewer, more = (trained, other) if s > S else (other, trained)
  assert other.codes.atoms.shape == (B, SIDE, SIDE, s)
  for few, many in zip(
    np.asarray(fewer.codes.atoms).reshape(-1, min(s, S)),
    np.asarray(more.codes.atoms).reshape(-1, max(s, S)),
    strict=True,
  ):
    assert set(few) < set(many)
  assert more.stats['relative_error'] < fewer.stats['relative_error']


def test_training_decodes_the_levels(z, variables):
  latent = Lasers(D=D, K=K, S=S).apply(variables, z, train=True)
  stored = Lasers(D=D, K=K, S=S).apply(variables, latent.codes, method='decode')
  np.testing.assert_allclose(latent.quantized, stored, rtol=1e-5, atol=1e-5)


ROUNDED = {'pursuit': 'rounded', 'coefficient_bits': 2}


def pursued(z, variables):
  held = variables['codebook']['coefficients']
  atoms = coding.normalize_atoms(variables['params']['dictionary'])
  return coding.rounded_pursuit(
    signals_of(z, variables), atoms, held['sizes'], held['levels'].values, S
  )


def test_rounded_codes_are_those_of_the_pursuit(z):
  module = Lasers(D=D, K=K, S=S, **ROUNDED)
  variables = start(module, z)
  codes = module.apply(variables, z, method='encode')
  found = pursued(z, variables)
  order = np.argsort(found.atoms, axis=1)
  for mine, theirs in zip(codes, (found.atoms, found.bins), strict=True):
    np.testing.assert_array_equal(
      mine.reshape(-1, S), np.take_along_axis(np.asarray(theirs), order, 1)
    )


def test_rounded_atoms_start_in_the_sizes_of_coefficients(z):
  plain, rounded = (
    start(Lasers(D=D, K=K, S=S, **fields), z)['codebook']['coefficients'][
      'sizes'
    ]
    for fields in ({}, ROUNDED)
  )
  assert np.ptp(plain) == 0 < np.ptp(rounded)
  assert 0.1 < np.median(rounded / plain) < 2
  assert np.all(rounded >= 0.1 * plain * 0.9999)


def test_sizes_follow_the_coefficients_of_each_atom(z):
  module = Lasers(D=D, K=K, S=S, **ROUNDED)
  variables = start(module, z)
  _, updates = module.apply(variables, z, train=True, mutable=['codebook'])
  found = pursued(z, variables)
  before, after = (
    x['codebook']['coefficients']['sizes'] for x in (variables, updates)
  )
  for k in range(K):
    own = np.asarray(found.coefficients)[np.asarray(found.atoms) == k]
    kept = 0.99 ** len(own)
    square = kept * before[k] ** 2
    if len(own):
      square += (1 - kept) * np.mean(own.astype('f8') ** 2)
    np.testing.assert_allclose(after[k], np.sqrt(square), rtol=1e-4)


def losses_of(variables, z, **fields):
  module = Lasers(D=D, K=K, **fields)
  return module.apply(variables, z, train=True).losses


@pytest.mark.parametrize('fields', [{}, ROUNDED], ids=['omp', 'rounded'])
def test_progressive_losses_are_means_over_the_prefixes(z, fields):
  variables = start(Lasers(D=D, K=K, S=3, **fields), z)
  each = [losses_of(variables, z, S=s, **fields) for s in (1, 2, 3)]
  progressive = losses_of(variables, z, S=3, progressive=True, **fields)
  for name, loss in progressive.items():
    mean = np.mean([x[name] for x in each])
    np.testing.assert_allclose(loss, mean, rtol=1e-5)
  assert progressive['commitment'] > each[2]['commitment']


def test_the_decoders_gradient_does_not_reach_the_dictionary(z, variables):
  c = jax.random.normal(jax.random.key(3), z.shape)
  module = Lasers(D=D, K=K, S=S, coefficient_bits=None)

  def total(params):
    latent = module.apply({**variables, 'params': params}, z, train=True)
    return jnp.sum(latent.quantized * c)

  assert not np.any(jax.grad(total)(variables['params'])['dictionary'])


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
  latent, _ = module.apply(
    online(variables), z, train=True, mutable=['codebook']
  )
  untouched = module.apply(online(variables), z, train=True)
  jax.tree.map(np.testing.assert_array_equal, latent, untouched)


def test_online_learning_is_the_algorithm_of_coding(z, variables):
  start = online(variables)
  module = Lasers(
    D=D, K=K, S=S, learning='online', forgetting=0.7, coefficient_bits=None
  )
  latent, updates = module.apply(start, z, train=True, mutable=['codebook'])

  before = start['codebook']
  atoms = coding.normalize_atoms(before['dictionary'])
  code, signals = code_of(z, start), signals_of(z, start)
  order = jnp.argsort(code.atoms, axis=1)
  code = SparseCode(*(jnp.take_along_axis(x, order, axis=1) for x in code))
  statistics = coding.update_statistics(
    before['statistics'], signals, code, 0.7
  )
  expected = coding.update_dictionary(atoms, statistics)
  after = updates['codebook']
  assert np.abs(expected - atoms).max() > 0.01
  np.testing.assert_array_equal(after['dictionary'], expected)
  for mine, theirs in zip(after['statistics'], statistics, strict=True):
    np.testing.assert_array_equal(mine, theirs)
  # The forward pass is that of the dictionary before the update.
  np.testing.assert_array_equal(
    latent.quantized.reshape(-1, D),
    before['mean'][None] + coding.reconstruct(code, atoms),
  )


def test_use_is_a_moving_average_of_shares(z, variables):
  module = Lasers(D=D, K=K, S=S, decay=0.75)
  latent, updates = module.apply(variables, z, train=True, mutable=['codebook'])
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
    (
      {'learning': 'gradints'},
      "learning must be one of ('gradient', 'online', 'fixed'): 'gradints'",
    ),
    (
      {'coefficient_bits': 0},
      "coefficient_bits must be from 1 to 12 with pursuit='omp', got 0",
    ),
    (
      {'coefficient_bits': 13},
      'coefficient_bits is 13: it must be a whole number, at least 0 and at '
      'most 12, or None',
    ),
    (
      {'coefficient_bits': 5, 'pursuit': 'rounded'},
      "coefficient_bits must be from 0 to 4 with pursuit='rounded', got 5",
    ),
    (
      {'coefficient_bits': None, 'pursuit': 'rounded'},
      "pursuit='rounded' needs coefficient_bits",
    ),
    ({'pursuit': 'ols'}, "pursuit must be one of ('omp', 'rounded'): 'ols'"),
  ],
)
def test_check(fields, message):
  module = Lasers(D=D, K=K, **fields)
  with pytest.raises(ValueError) as error:
    module.check()
  assert str(error.value) == message
  with pytest.raises(ValueError, match=re.escape(message)):
    module.init(jax.random.key(0), jnp.zeros((1, 2, 2, D)), train=False)
