import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.patches import from_patches, to_patches


@pytest.mark.parametrize('lead', [(), (2,), (2, 3)])
@pytest.mark.parametrize('p', [1, 2, 3])
def test_round_trip(lead, p):
  shape = (*lead, 2 * p, 3 * p, 5)
  z = jnp.arange(np.prod(shape)).reshape(shape)
  patches = to_patches(z, p)
  assert patches.shape == (*lead, 2, 3, p * p * 5)
  np.testing.assert_array_equal(from_patches(patches, p), z)


def test_a_signal_is_the_block_of_its_site():
  z = np.random.default_rng(0).standard_normal((2, 6, 4, 3))
  patches = to_patches(jnp.asarray(z), 2).reshape(2, 3, 2, 2, 2, 3)
  for i in range(3):
    for j in range(2):
      block = z[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
      np.testing.assert_array_equal(patches[:, i, j], block.astype('f4'))


@pytest.mark.parametrize('height, width', [(4, 3), (3, 4)])
def test_patches_must_tile_the_latent(height, width):
  with pytest.raises(ValueError) as error:
    to_patches(jnp.zeros((1, height, width, 2)), 2)
  assert str(error.value) == (
    f'patches of side 2 do not tile a latent of {height}×{width}'
  )
