"""One latent vector for a square: shapes, tiles, and what cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.networks import VectorDecoder, VectorEncoder

SMALL = {'D': 5, 'side': 12, 'channels': 8}


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).random((2, 24, 36, 3), np.float32)


@pytest.fixture(scope='module')
def encoder(images):
  module = VectorEncoder(**SMALL)
  variables = jax.jit(module.init)(jax.random.key(0), images)
  return jax.jit(lambda x: module.apply(variables, x))


@pytest.fixture(scope='module')
def decoder():
  module = VectorDecoder(**SMALL)
  z = jnp.zeros((1, 1, 1, 5))
  variables = jax.jit(module.init)(jax.random.key(1), z)
  return jax.jit(lambda z: module.apply(variables, z))


def test_a_square_has_one_vector(encoder, decoder, images):
  z = encoder(images[:, :12, :12])
  assert z.shape == (2, 1, 1, 5)
  assert z.dtype == jnp.float32
  assert decoder(z).shape == (2, 12, 12, 3)


def test_a_larger_image_is_coded_square_by_square(encoder, decoder, images):
  z = encoder(images)
  assert z.shape == (2, 2, 3, 5)
  part = encoder(images[:, 12:24, 24:36])
  np.testing.assert_allclose(z[:, 1:2, 2:3], part, atol=1e-6)
  whole, part = decoder(z), decoder(part)
  np.testing.assert_allclose(whole[:, 12:24, 24:36], part, atol=1e-6)


def test_the_whole_square_is_seen_and_made(encoder, decoder, images):
  """No pixel of a square is without part in its vector, nor the reverse."""
  square = images[:1, :12, :12]
  seen = jax.jit(jax.grad(lambda x: jnp.sum(encoder(x) ** 2)))(square)
  assert np.all(np.abs(seen).sum(axis=-1) > 0)
  made = jax.jit(jax.jacrev(decoder))(encoder(square))[0, ..., 0, 0, 0, :]
  assert np.all(np.abs(made.sum(axis=-1)).sum(axis=-1) > 0)


def test_parameters_are_those_of_the_layers():
  def count(module, x):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))

  # Convolutions of 4x4 to 8 and 16 channels, and 3x3 sites of 16 to D = 5.
  convolutions = 16 * 3 * 8 + 8 + 16 * 8 * 16 + 16
  encoder = convolutions + 9 * 16 * 5 + 5
  assert count(VectorEncoder(**SMALL), jnp.zeros((1, 12, 12, 3))) == encoder
  decoder = 5 * 144 + 144 + 16 * 16 * 8 + 8 + 16 * 8 * 3 + 3
  assert count(VectorDecoder(**SMALL), jnp.zeros((1, 1, 1, 5))) == decoder


def test_computes_in_bfloat16():
  module = VectorEncoder(**SMALL, dtype=jnp.bfloat16)
  x = jnp.ones((1, 12, 12, 3))
  z, variables = jax.jit(module.init_with_output)(jax.random.key(0), x)
  assert z.dtype == jnp.float32
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
  np.testing.assert_array_equal(z, z.astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize(
  'fields, line',
  [
    ({'side': 10}, 'network.side = 10 cannot be halved 2 times'),
    ({'num_downsamples': 0}, 'choose num_downsamples from 1'),
    ({'side': 16}, 'do not divide by the down-sampling factor 16'),
  ],
)
def test_what_cannot_be(fields, line):
  module = VectorEncoder(**{**SMALL, **fields})
  images = jnp.zeros((1, 10, 10, 3) if module.side == 10 else (1, 12, 12, 3))
  with pytest.raises(InputError, match=line):
    jax.eval_shape(module.init, jax.random.key(0), images)


def test_another_width_of_latents_is_refused():
  module, z = VectorDecoder(**SMALL), jnp.zeros((1, 1, 1, 4))
  with pytest.raises(ValueError, match='4 channels, not D = 5'):
    jax.eval_shape(module.init, jax.random.key(0), z)
