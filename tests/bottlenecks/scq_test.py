import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.scq import SCQ
from lasers_jax.coding.convex import convex_weights
from lasers_jax.coding.search import linear
from tests.bottlenecks.rows import assert_close

B, SIDE, D, K = 4, 4, 8, 16


@pytest.fixture(scope='module')
def z():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


@pytest.fixture(scope='module')
def variables():
  generator = np.random.default_rng(1)
  codes = jnp.asarray(2 * generator.standard_normal((K, D)), 'f4')
  return {'params': {'codes': codes}}


def apply(variables, *args, **options):
  fields = {
    name: options.pop(name)
    for name in ('keep', 'coefficient_bits')
    if name in options
  }
  return SCQ(D=D, K=K, **fields).apply(variables, *args, **options)


def test_codes_are_weights_on_the_simplex(z, variables):
  codes = apply(variables, z, method='encode')
  assert codes.shape == (B, SIDE, SIDE, K)
  assert codes.dtype == jnp.float32
  assert codes.min() >= 0
  np.testing.assert_allclose(codes.sum(axis=-1), 1, rtol=1e-5)
  quantized = apply(variables, codes, method='decode')
  expected = np.asarray(codes) @ np.asarray(variables['params']['codes'])
  np.testing.assert_allclose(quantized, expected, atol=1e-5)


def test_training_is_evaluation(z, variables):
  """Nothing is rounded, and nothing drawn."""
  latents = [apply(variables, z, train=train) for train in (False, True)]
  jax.tree.map(np.testing.assert_array_equal, *latents)


def test_the_gradient_is_that_of_the_weights(z, variables):
  c = jax.random.normal(jax.random.key(3), z.shape)

  def total(params, z):
    latent = apply({'params': params}, z, train=True)
    return jnp.sum(latent.quantized * c)

  def expected(params, z):
    signals, codes = z.reshape(-1, D), params['codes']
    rows = linear(convex_weights(signals, codes, 0.1), codes)
    return jnp.sum(rows * c.reshape(-1, D))

  found, wanted = (
    jax.grad(x, (0, 1))(variables['params'], z) for x in (total, expected)
  )
  assert_close(found, wanted)
  assert np.abs(found[1] - c).max() > 0.1  # not straight through


def test_the_loss_reaches_encoder_and_codes(z, variables):
  def loss(params, z):
    return apply({'params': params}, z, train=True).losses['quantization']

  value, gradients = jax.value_and_grad(loss, (0, 1))(variables['params'], z)
  quantized = apply(variables, z, train=True).quantized
  np.testing.assert_allclose(value, np.mean((quantized - z) ** 2), rtol=1e-5)
  assert all(np.any(x != 0) for x in jax.tree.leaves(gradients))


def test_stats(z, variables):
  latent = apply(variables, z, train=False)
  assert set(latent.stats) == {'relative_error', 'active'}
  active = np.sum(np.asarray(latent.codes) > 0, axis=-1).mean()
  np.testing.assert_allclose(latent.stats['active'], active, rtol=1e-6)
  error = np.sum((np.asarray(latent.quantized) - z) ** 2) / np.sum(z**2)
  np.testing.assert_allclose(latent.stats['relative_error'], error, rtol=1e-5)
  kept = apply(variables, z, train=False, keep=2).stats
  assert set(kept) == {'relative_error', 'active', 'usage', 'perplexity'}


def test_kept_weights_are_integers(z, variables):
  codes = apply(variables, z, method='encode', keep=3, coefficient_bits=4)
  assert codes.atoms.shape == codes.coefficients.shape == (B, SIDE, SIDE, 3)
  assert codes.atoms.dtype == codes.coefficients.dtype == jnp.int32
  np.testing.assert_array_equal(codes.coefficients[..., 0], 15)
  assert codes.coefficients.min() >= 0
  module = SCQ(D=D, K=K, keep=3, coefficient_bits=4)
  indices = module.apply(variables, codes, method='indices')
  np.testing.assert_array_equal(indices, codes.atoms)
  # The decoded site is their mean, weighted by the integers.
  levels = np.asarray(codes.coefficients, np.float64)
  chosen = np.asarray(variables['params']['codes'])[np.asarray(codes.atoms)]
  expected = np.einsum('...m,...md->...d', levels, chosen)
  expected /= levels.sum(axis=-1, keepdims=True)
  quantized = module.apply(variables, codes, method='decode')
  np.testing.assert_allclose(quantized, expected, atol=1e-5)


def test_keeping_is_for_evaluation(z, variables):
  free = apply(variables, z, train=True)
  latent = apply(variables, z, train=True, keep=2)
  np.testing.assert_array_equal(latent.quantized, free.quantized)
  codes = apply(variables, z, method='encode', keep=2)
  jax.tree.map(np.testing.assert_array_equal, latent.codes, codes)
  plain = apply(variables, z, train=False, keep=2)
  decoded = apply(variables, codes, method='decode', keep=2)
  np.testing.assert_array_equal(plain.quantized, decoded)
  assert plain.stats['relative_error'] > latent.stats['relative_error']


def test_what_is_kept_comes_near_to_all(z, variables):
  z = 0.2 * z  # within the hull, where many weights are positive
  free = apply(variables, z, train=False).quantized

  def gaps(*kept):
    for keep, bits in kept:
      fields = {'keep': keep, 'coefficient_bits': bits}
      quantized = apply(variables, z, train=False, **fields).quantized
      yield np.abs(quantized - free).mean()

  of_atoms = [*gaps((1, 12), (3, 12), (K, 12))]
  of_bits = [*gaps((K, 4), (K, 8))]
  assert of_atoms[0] > of_atoms[1] > of_atoms[2]
  assert of_bits[0] > of_bits[1] > of_atoms[2]
  assert of_atoms[2] < 1e-3


@pytest.mark.parametrize(
  'fields, bits, symbols',
  [
    ({}, None, 0),
    ({'keep': 1}, 9 + 8, 512),
    ({'keep': 4, 'coefficient_bits': 5}, 4 * (9 + 5), 512),
    ({'keep': 2, 'K': 513}, 2 * (10 + 8), 513),
  ],
)
def test_bits_per_site(fields, bits, symbols):
  module = SCQ(**{'K': 512, **fields})
  assert (module.bits_per_site, module.symbols) == (bits, symbols)


def test_codes_start_as_signals(z):
  module = SCQ(D=D, K=K)
  drawn = module.init(jax.random.key(0), z, train=False)
  rngs = {'bottleneck': jax.random.key(1)}
  _, started = module.apply(
    drawn, z, method='initialize', mutable=['params'], rngs=rngs
  )
  codes = np.asarray(started['params']['codes'])
  signals = np.asarray(z).reshape(-1, D)
  distances = np.linalg.norm(codes[:, None] - signals[None], axis=-1)
  assert np.all(distances.min(axis=1) < 0.2)
  atoms = module.apply(started, method='atoms')
  np.testing.assert_array_equal(atoms[:, 0, 0], codes)


@pytest.mark.parametrize('keep', [None, 2])
def test_masked_sites_count_for_nothing(z, variables, keep):
  mask = jnp.zeros((B, SIDE, SIDE), bool).at[:, :2].set(True)
  other = jnp.where(mask[..., None], z, 7.0 * z[::-1] + 1)
  one, two = (
    apply(variables, x, train=True, mask=mask, keep=keep) for x in (z, other)
  )
  alone = apply(variables, z[:, :2], train=True, keep=keep)
  for latent in (two, alone):
    assert_close((latent.losses, latent.stats), (one.losses, one.stats))


@pytest.mark.parametrize('keep', [None, 2])
def test_bfloat16_and_extremes(z, variables, keep):
  half = z.astype(jnp.bfloat16)
  latent = apply(variables, half, train=True, keep=keep)
  assert latent.quantized.dtype == jnp.bfloat16
  exact = apply(variables, half.astype('f4'), method='encode', keep=keep)
  jax.tree.map(np.testing.assert_array_equal, latent.codes, exact)
  for x in (0 * z, 1e3 * z):
    leaves = jax.tree.leaves(apply(variables, x, train=False, keep=keep))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'keep': 17}, 'keep must be None or from 1 to K = 16, got 17'),
  ],
)
def test_check(fields, message):
  with pytest.raises(ValueError) as error:
    SCQ(**{'D': D, 'K': K, **fields}).check()
  assert str(error.value) == message
