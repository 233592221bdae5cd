"""A small network with one latent vector for a whole square picture.

Strided convolutions and one dense layer, as in the autoencoders that priors
are often compared on (C. Chadebec et al., arXiv 2206.08309, appendix), without
their batch normalisation: the code of an image must not depend on others.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.core.ranges import Count
from lasers_jax.errors import InputError
from lasers_jax.networks import layers


def _small_side(side, num_downsamples):
  if num_downsamples < 1 or side % 2**num_downsamples:
    raise InputError(
      f'network.side = {side} cannot be halved {num_downsamples} times: choose '
      'num_downsamples from 1, and a side that divides by 2**num_downsamples'
    )
  return side // 2**num_downsamples


class VectorFields(nn.Module):
  """Holds the fields that VectorEncoder and VectorDecoder share."""

  D: Count
  side: Count
  channels: Count = 64
  num_downsamples: Count = 2
  dtype: jnp.dtype = jnp.float32

  @property
  def f(self) -> int:
    """The factor between the sides of an image and of its latent."""
    return self.side


class VectorEncoder(VectorFields):
  """Encodes squares: [B, side*H, side*W, 3] -> latents [B, H, W, D] float32.

  Each square of `side` pixels is coded by itself, so that an image of that side
  has one latent vector. `num_downsamples` convolutions of stride 2 have
  `channels`, twice that, ... channels. Computes in `dtype`. Raises InputError
  where `side` cannot be halved so often or a side of the images does not divide
  by it.
  """

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    layers.check_sides(images, self.side)
    _small_side(self.side, self.num_downsamples)
    b, h, w, c = images.shape
    h, w = h // self.side, w // self.side
    x = images.reshape(b, h, self.side, w, self.side, c)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, self.side, self.side, c)
    x = x.astype(self.dtype)
    for i in range(self.num_downsamples):
      x = nn.relu(layers.DownConv(self.channels * 2**i, self.dtype)(x))
    x = x.reshape(len(x), -1)
    z = nn.Dense(self.D, dtype=self.dtype, name='to_latent')(x)
    return z.reshape(b, h, w, self.D).astype(jnp.float32)


class VectorDecoder(VectorFields):
  """Decodes latents: [B, H, W, D] -> images [B, side*H, side*W, 3] float32.

  The mirror of `VectorEncoder`, with the same fields; nothing bounds the
  output. Raises ValueError where the latent does not have D channels.
  """

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    layers.check_width(z, self.D)
    b, h, w, _ = z.shape
    small = _small_side(self.side, self.num_downsamples)
    features = [self.channels * 2**i for i in range(self.num_downsamples)]
    x = z.reshape(-1, self.D).astype(self.dtype)
    x = nn.relu(nn.Dense(small**2 * features[-1], dtype=self.dtype)(x))
    x = x.reshape(-1, small, small, features[-1])
    for n in reversed(features[:-1]):
      x = nn.relu(layers.UpConv(n, self.dtype)(x))
    x = layers.UpConv(3, self.dtype, name='to_image')(x)
    x = x.reshape(b, h, w, self.side, self.side, 3).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * self.side, w * self.side, 3).astype(jnp.float32)
