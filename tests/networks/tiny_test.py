import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.networks.tiny import TinyBlock, TinyDecoder, TinyEncoder


def count(module, *shape):
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
  'fields, encoder, decoder',
  [
    ({'D': 4}, 1_222_532, 1_222_531),  # TAESD
    ({'D': 32, 'pool': 256}, 1_338_528, 1_338_499),  # TAEF2
  ],
)
def test_parameters_are_the_published_ones(fields, encoder, decoder):
  """But for halvings of 4x4 instead of 3x3, and for three more biases."""
  more = 3 * (16 - 9) * 64 * 64 + 3 * 64
  found = count(TinyEncoder(**fields), 1, 8, 8, 3)
  assert found == encoder + more
  found = count(TinyDecoder(**fields), 1, 1, 1, fields['D'])
  assert found == decoder + 3 * 64


def test_a_block_is_convolutions_beside_the_map_and_the_pool():
  x = np.random.default_rng(0).normal(size=(1, 3, 5, 8)).astype(np.float32)
  block = TinyBlock(pool=4)
  variables = jax.jit(block.init)(jax.random.key(0), x)
  zero = jax.tree.map(jnp.zeros_like, variables)
  np.testing.assert_array_equal(block.apply(zero, x), np.maximum(x, 0))
  # With the pool alone: groups of one channel of the four, so each is normal.
  params = zero['params'] | {
    name: variables['params'][name]
    for name in ('pool_in', 'GroupNorm_0', 'pool_out')
  }
  params = jax.device_get(params)
  h = x @ params['pool_in']['kernel'][0, 0]
  h -= h.mean((1, 2), keepdims=True)
  h = np.maximum(h / np.sqrt((h**2).mean((1, 2), keepdims=True) + 1e-5), 0)
  expected = np.maximum(x + h @ params['pool_out']['kernel'][0, 0], 0)
  found = block.apply({'params': params}, x)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_black_is_beyond_the_edge():
  encoder = TinyEncoder(D=4, channels=4)
  black = np.full((1, 24, 24, 3), -0.5, np.float32)
  variables = jax.jit(encoder.init)(jax.random.key(0), black)
  z = jax.jit(encoder.apply)(variables, black)
  np.testing.assert_array_equal(z, np.zeros((1, 3, 3, 4)))


def test_the_latent_is_bounded():
  decoder = TinyDecoder(D=4, channels=4)
  z = 1e4 * np.random.default_rng(0).normal(size=(2, 1, 1, 4))
  variables = jax.jit(decoder.init)(jax.random.key(0), z[:1])
  far, further = (jax.jit(decoder.apply)(variables, x) for x in (z, 9 * z))
  np.testing.assert_array_equal(far, further)


def test_a_pool_that_has_no_groups():
  with pytest.raises(InputError, match='network.pool is 6: .* multiple of 4'):
    TinyEncoder(D=4, pool=6)
