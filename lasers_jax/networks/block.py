"""One linear map of blocks of pixels, and residual convolutions beside it.

The map starts as the cosine transform of a block, as JPEG's (N. Ahmed, T.
Natarajan and K. R. Rao, IEEE Trans. Computers, 1974), and the output of the
convolutions, on the map of blocks, starts at zero: with D = 3f² channels the
model begins without loss, and learns which channels are worth their bits, and
how blocks go together.

A filter of the decoded pixels may follow, whose output starts at zero, too. It
takes away what coarse steps leave at the edges of blocks and of things, as the
loop filters of video codecs do (for convolutions: C. Dong et al., "Compression
artifacts reduction by a deep convolutional network", ICCV 2015).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lasers_jax.core.ranges import Count, Whole
from lasers_jax.errors import InputError
from lasers_jax.networks import layers
from lasers_jax.networks.vqvae import ResidualStack

_SQUARE = 2  # the side of what the filter takes as one site
_CHROMA = 2.0  # a difference of colours stands as late as so high a frequency


class BlockFields(nn.Module):
  """Holds the fields that BlockEncoder and BlockDecoder share.

  Attributes:
    channels, blocks: of the residual convolutions on the map of blocks.
    filter_channels, filter_blocks: of those of the decoder on squares of
      2 x 2 pixels; no blocks, no filter.
  """

  D: Count
  f: Count = 8
  channels: Count = 192
  blocks: Whole = 3
  filter_channels: Count = 48
  filter_blocks: Whole = 0
  dtype: jnp.dtype = jnp.float32


class BlockEncoder(BlockFields):
  """Encodes images: [B, f*H, f*W, 3] -> latents [B, H, W, D] float32.

  Computes in `dtype`. Raises InputError where a side does not divide by f, or D
  is above 3f².
  """

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    layers.check_sides(images, self.f)
    x = layers.space_to_depth(images.astype(self.dtype), self.f)
    h = _around(x, self.channels, self.blocks, self.dtype)
    start = cosine_transform(self.f, self.D)
    to_latent = _linear(start, self.dtype, name='to_latent')
    return to_latent(jnp.concatenate([x, h], axis=-1)).astype(jnp.float32)


class BlockDecoder(BlockFields):
  """Decodes latents: [B, H, W, D] -> images [B, f*H, f*W, 3] float32.

  The mirror of `BlockEncoder`, with the same fields; nothing bounds the output.
  """

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    layers.check_width(z, self.D)
    z = z.astype(self.dtype)
    h = _around(z, self.channels, self.blocks, self.dtype)
    start = cosine_transform(self.f, self.D).T
    to_image = _linear(start, self.dtype, name='to_image')
    x = to_image(jnp.concatenate([z, h], axis=-1))
    x = layers.depth_to_space(x, self.f)
    if self.filter_blocks:
      x += self._filter(x)
    return x.astype(jnp.float32)

  def _filter(self, x: jax.Array) -> jax.Array:
    """What is to be added to images: at first zero."""
    h = layers.space_to_depth(x, _SQUARE)
    h = _around(h, self.filter_channels, self.filter_blocks, self.dtype)
    zeros = np.zeros((0, 3 * _SQUARE**2), np.float32)
    change = _linear(zeros, self.dtype, name='filtered')(h)
    return layers.depth_to_space(change, _SQUARE)


def cosine_transform(f: int, d: int) -> np.ndarray:
  """Returns the d lowest cosines of a block of f x f pixels: float32 [3f², d].

  Orthonormal columns: a DCT-II over rows, columns and colours. They are sorted
  by frequency, which counts twice for colour differences. Raises InputError
  where d is above 3f².
  """
  if d > 3 * f**2:
    raise InputError(f'D = {d} is more than the {3 * f**2} numbers of a block')
  rows, colours = _cosines(f), _cosines(3)
  orders = itertools.product(range(f), range(f), range(3))
  key = {
    (u, v, c): (u**2 + v**2 + 1) * (_CHROMA**2 if c else 1)
    for u, v, c in orders
  }
  lowest = sorted(key, key=key.get)[:d]
  columns = [
    np.einsum('i,j,k->ijk', rows[u], rows[v], colours[c]).ravel()
    for u, v, c in lowest
  ]
  return np.stack(columns, axis=1).astype(np.float32)


def _cosines(n: int) -> np.ndarray:
  """The orthonormal DCT-II: [frequencies, n]."""
  k, i = np.arange(n)[:, None], np.arange(n)[None]
  basis = np.cos(np.pi * k * (i + 0.5) / n) * np.sqrt(2 / n)
  basis[0] /= np.sqrt(2)
  return basis


def _around(x, channels, blocks, dtype):
  """What the blocks around say of each: [B, H, W, C] -> [B, H, W, channels]."""
  h = layers.conv(channels, 3, dtype)(x)
  return ResidualStack(channels, blocks, dtype)(h)


def _linear(start: np.ndarray, dtype, name: str) -> nn.Dense:
  """A map that starts as one of the first channels alone."""

  def init(key, shape, dtype):
    del key
    missing = shape[0] - len(start)
    return jnp.asarray(np.pad(start, ((0, missing), (0, 0))), dtype)

  return nn.Dense(start.shape[1], dtype=dtype, kernel_init=init, name=name)
