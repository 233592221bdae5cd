"""The small networks of TAESD, which stand in for those of latent diffusion.

O. Bohan Boer, github.com/madebyollin/taesd (MIT): blocks of three convolutions
at one width, without normalisation. In TAEF2, for the latent of FLUX.2, blocks
at the coarsest level first see a normalised map (`pool`).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.core.ranges import Count, Whole
from lasers_jax.errors import InputError
from lasers_jax.networks import layers

BLOCKS = 3  # of a level
_GROUPS, _EPSILON = 4, 1e-5


class TinyBlock(nn.Module):
  """Adds three convolutions: [B, H, W, C] -> the same, not negative.

  With `pool`, it first adds a map of so many channels, normalised over a
  picture.
  """

  pool: int = 0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    if self.pool:
      h = layers.conv(self.pool, 1, self.dtype, False, 'pool_in')(x)
      norm = nn.GroupNorm(_GROUPS, epsilon=_EPSILON, dtype=self.dtype)
      h = nn.relu(norm(h))
      x = x + layers.conv(channels, 1, self.dtype, False, 'pool_out')(h)
    h = x
    for i in range(3):
      h = layers.conv(channels, 3, self.dtype)(nn.relu(h) if i else h)
    return nn.relu(h + x)


class TinyFields(nn.Module):
  """Holds the fields that TinyEncoder and TinyDecoder share.

  Attributes:
    pool: channels of the normalised map at the coarsest level, a multiple of
      4; 0 is without.
  """

  D: Count
  channels: Count = 64
  pool: Whole = 0
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    if self.pool % _GROUPS:
      raise InputError(
        f'network.pool is {self.pool}: it must be a multiple of {_GROUPS}'
      )
    super().__post_init__()

  @property
  def f(self) -> int:
    """The factor between the sides of an image and of its latent."""
    return 8

  def _level(self, x, pool=0):
    for _ in range(BLOCKS):
      x = TinyBlock(pool, self.dtype)(x)
    return x


class TinyEncoder(TinyFields):
  """Encodes images: [B, 8*H, 8*W, 3] -> latents [B, H, W, D] float32.

  Images lie about in [-0.5, 0.5], and beyond their edge is black, -0.5.
  Computes in `dtype`. Raises InputError where a side does not divide by 8.
  """

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    layers.check_sides(images, self.f)
    x = layers.conv(self.channels, 3, self.dtype)(
      (images + 0.5).astype(self.dtype)
    )
    x = TinyBlock(0, self.dtype)(x)
    for pool in 0, 0, self.pool:
      x = layers.DownConv(self.channels, self.dtype)(x)
      x = self._level(x, pool)
    z = layers.conv(self.D, 3, self.dtype, name='to_latent')(x)
    return z.astype(jnp.float32)


class TinyDecoder(TinyFields):
  """Decodes latents: [B, H, W, D] -> images [B, 8*H, 8*W, 3] float32.

  The mirror of `TinyEncoder`, with the same fields; a tanh holds what it reads
  within 3, and nothing bounds the output. Raises ValueError where the latent
  does not have D channels.
  """

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    layers.check_width(z, self.D)
    x = (3 * jnp.tanh(z / 3)).astype(self.dtype)
    x = nn.relu(layers.conv(self.channels, 3, self.dtype)(x))
    for pool in self.pool, 0, 0:
      x = self._level(x, pool)
      x = layers.NearestUpConv(self.channels, self.dtype)(x)
    x = TinyBlock(0, self.dtype)(x)
    x = layers.conv(3, 3, self.dtype, name='to_image')(x)
    return x.astype(jnp.float32)
