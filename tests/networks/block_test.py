import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dctn

from lasers_jax.errors import InputError
from lasers_jax.networks import BlockDecoder, BlockEncoder
from lasers_jax.networks.block import cosine_transform

SMALL = {
  'f': 4,
  'channels': 8,
  'blocks': 1,
  'filter_channels': 6,
  'filter_blocks': 1,
}
IMAGES = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8, 12, 3))
IMAGES = jnp.asarray(IMAGES, jnp.float32)


def start(module, x):
  return jax.jit(module.init)(jax.random.key(0), x)


def test_it_starts_as_the_cosine_transform_of_blocks():
  encoder = BlockEncoder(D=48, **SMALL)
  z = encoder.apply(start(encoder, IMAGES), IMAGES)
  assert z.shape == (2, 2, 3, 48)
  assert z.dtype == jnp.float32
  block = np.asarray(IMAGES[1, 4:8, 8:12], 'f8')
  expected = dctn(block, norm='ortho')
  np.testing.assert_allclose(
    np.sort(np.abs(z[1, 1, 2])), np.sort(np.abs(expected).ravel()), atol=1e-6
  )
  np.testing.assert_allclose(z[1, 1, 2, 0], expected[0, 0, 0], rtol=1e-5)


def test_it_starts_without_loss():
  encoder, decoder = (
    kind(D=48, **SMALL) for kind in (BlockEncoder, BlockDecoder)
  )
  z = encoder.apply(start(encoder, IMAGES), IMAGES)
  copies = decoder.apply(start(decoder, z), z)
  assert copies.shape == IMAGES.shape
  assert copies.dtype == jnp.float32
  np.testing.assert_allclose(copies, IMAGES, atol=1e-5)


def test_a_filter_reads_across_the_edges_of_blocks():
  """The convolutions on the map of blocks, which start at zero, add nothing."""
  decoder = BlockDecoder(D=48, **SMALL)
  z = jax.random.normal(jax.random.key(1), (1, 1, 4, 48))
  params = start(decoder, z)['params']
  kernel = params['filtered']['kernel']
  assert not np.any(kernel)
  params = {**params, 'filtered': {'kernel': kernel + 1, 'bias': np.ones(12)}}

  def decode(z):
    return decoder.apply({'params': params}, z)

  other = decode(z.at[0, 0, 0].add(1.0))
  changed = np.any(other != decode(z), axis=(0, 1, 3))
  # Two 3 x 3 convolutions of squares of 2 x 2 pixels.
  np.testing.assert_array_equal(changed, np.arange(16) < 4 + 2 * 2)


def test_fewer_channels_are_the_lowest_frequencies():
  few, all_of_them = cosine_transform(4, 5), cosine_transform(4, 48)
  np.testing.assert_array_equal(few, all_of_them[:, :5])
  np.testing.assert_allclose(all_of_them.T @ all_of_them, np.eye(48), atol=1e-6)
  np.testing.assert_allclose(few[:, 0], 48**-0.5, rtol=1e-6)  # the mean


def test_every_parameter_learns():
  """Those of the convolutions once the last layer hears them."""
  encoder = BlockEncoder(D=10, **SMALL)
  params = start(encoder, IMAGES)['params']
  to_latent = params['to_latent']
  assert to_latent['kernel'].shape == (48 + 8, 10)
  params = {
    **params,
    'to_latent': {**to_latent, 'kernel': to_latent['kernel'] + 0.01},
  }

  def loss(params):
    return jnp.sum(encoder.apply({'params': params}, IMAGES) ** 2)

  gradients = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
  assert all(np.any(x != 0) for x in gradients)


@pytest.mark.parametrize('kind, sides', [(BlockEncoder, 8), (BlockDecoder, 2)])
def test_computes_in_dtype_between_float32_ends(kind, sides):
  module = kind(D=3, dtype=jnp.bfloat16, **SMALL)

  def run(x):
    return module.init_with_output(
      jax.random.key(0), x, capture_intermediates=True
    )

  y, variables = jax.eval_shape(run, jnp.zeros((1, sides, sides, 3)))
  assert y.dtype == jnp.float32
  inner = variables['intermediates']
  inner.pop('__call__')
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(inner))
  params = jax.tree.leaves(variables['params'])
  assert all(x.dtype == jnp.float32 for x in params)


def test_what_cannot_be():
  with pytest.raises(InputError, match='do not divide by'):
    start(BlockEncoder(D=3, **SMALL), jnp.zeros((1, 6, 8, 3)))
  with pytest.raises(InputError, match='D = 49 is more than the 48 numbers'):
    start(BlockEncoder(D=49, **SMALL), IMAGES)
  with pytest.raises(ValueError, match='has 4 channels, not D = 3'):
    start(BlockDecoder(D=3, **SMALL), jnp.zeros((1, 2, 2, 4)))
