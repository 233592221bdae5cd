"""The small network of VQ-VAE and of LASERS: strides of 2, two residual blocks.

LASERS, arXiv 2409.11184, section 4; van den Oord et al., arXiv 1711.00937.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.core.ranges import Count, Several, Whole
from lasers_jax.errors import InputError
from lasers_jax.networks import layers


def _halvings(f):
  if f < 2 or f & (f - 1):
    raise InputError(f'f = {f} is not a power of two: use 2, 4, 8, ...')
  return f.bit_length() - 1


class ResidualStack(nn.Module):
  """Applies `blocks` times x + conv1x1(relu(conv3x3(relu(x)))), then a ReLU.

  [B, H, W, C] -> [B, H, W, C]; the convolutions have no bias.
  """

  channels: int
  blocks: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    for _ in range(self.blocks):
      h = layers.conv(self.channels, 3, self.dtype, use_bias=False)(nn.relu(x))
      h = layers.conv(x.shape[-1], 1, self.dtype, use_bias=False)(nn.relu(h))
      x = x + h
    return nn.relu(x)


class VQVAEFields(nn.Module):
  """Holds the fields that VQVAEEncoder and VQVAEDecoder share."""

  D: Count
  channels: Several = 128  # half of it is used, too
  residual_channels: Count = 32
  residual_blocks: Whole = 2
  f: Several = 4
  dtype: jnp.dtype = jnp.float32


class VQVAEEncoder(VQVAEFields):
  """Encodes images: [B, f*H, f*W, 3] -> latents [B, H, W, D] float32.

  Images lie about in [-0.5, 0.5]; any sides that divide by f, a power of two,
  will do. Computes in `dtype`. By default it has the 363,840 parameters of the
  paper before the layer `to_latent`. Raises InputError where f is no power of
  two or a side does not divide by it.
  """

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x, num_downsamples = images.astype(self.dtype), _halvings(self.f)
    layers.check_sides(images, self.f)
    for left in reversed(range(num_downsamples)):
      features = self.channels // 2 if left else self.channels
      x = nn.relu(layers.DownConv(features, self.dtype)(x))
    x = layers.conv(self.channels, 3, self.dtype)(x)
    x = ResidualStack(self.residual_channels, self.residual_blocks, self.dtype)(
      x
    )
    z = layers.conv(self.D, 1, self.dtype, name='to_latent')(x)
    return z.astype(jnp.float32)


class VQVAEDecoder(VQVAEFields):
  """Decodes latents: [B, H, W, D] -> images [B, f*H, f*W, 3] float32.

  The mirror of `VQVAEEncoder`, with the same fields; nothing bounds the output.
  Raises ValueError where the latent does not have D channels.
  """

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    layers.check_width(z, self.D)
    x = layers.conv(self.channels, 3, self.dtype)(z.astype(self.dtype))
    x = ResidualStack(self.residual_channels, self.residual_blocks, self.dtype)(
      x
    )
    for _ in range(_halvings(self.f) - 1):
      x = nn.relu(layers.UpConv(self.channels // 2, self.dtype)(x))
    x = layers.UpConv(3, self.dtype, name='to_image')(x)
    return x.astype(jnp.float32)
