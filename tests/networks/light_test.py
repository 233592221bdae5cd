import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax.networks import layers
from lasers_jax.networks.light import LightDecoder, LightEncoder


def shapes_of(module, *shape):
  init = module.init_with_output
  return jax.eval_shape(init, jax.random.key(0), jnp.zeros(shape))


def test_parameters_are_the_published_ones():
  """But for the biases of the layers that double a side, four times each."""
  z, encoder = shapes_of(LightEncoder(D=4), 1, 16, 24, 3)
  x, decoder = shapes_of(LightDecoder(D=4), *z.shape)
  assert (z.shape, x.shape) == ((1, 2, 3, 4), (1, 16, 24, 3))
  found = sum(leaf.size for leaf in jax.tree.leaves([encoder, decoder]))
  assert found == 467_124 + 3 * (16 + 16 + 64 + 16 + 64 + 64)


def test_interpolation_repeats_the_edge_of_a_picture():
  x = np.random.default_rng(0).normal(size=(1, 5, 6, 3)).astype(np.float32)
  alone = layers.BilinearUp(4).apply({}, x[:, :3, :4])
  mask = np.zeros((1, 5, 6), bool)
  mask[:, :3, :4] = True
  within = layers.BilinearUp(4).apply(
    {}, np.where(mask[..., None], x, np.nan), mask
  )
  np.testing.assert_allclose(within[:, :12, :16], alone, atol=1e-5)
  # The centre of a quarter of a site is at 1/8, 3/8, 5/8 and 7/8 of it.
  np.testing.assert_allclose(alone[:, :2], alone[:, :1].repeat(2, 1), atol=1e-6)
  row = alone[:, 0, 2:6]
  ends, parts = x[:, 0, :2], (np.arange(4) + 0.5)[:, None] / 4
  expected = (1 - parts) * ends[:, :1] + parts * ends[:, 1:]
  np.testing.assert_allclose(row, expected, atol=1e-5)
