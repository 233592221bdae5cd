"""The tokenizer network of MaskGIT, as SWYCC takes it for 256 pixels.

H. Chang et al., "MaskGIT: masked generative image transformer", CVPR 2022, and
V. Birodkar et al., "Sample what you can't compress", arXiv 2409.02529: the
residual network of VQGAN without attention, whose convolutions have no bias. A
side is halved by the mean of 2x2 sites and doubled by depth to space. From
SWYCC are the last and GELU: MaskGIT has nearest neighbour and swish. Unlike in
MaskGIT's released code, a shortcut takes what comes into its block.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.core.ranges import Count, Counts, Whole
from lasers_jax.networks import layers
from lasers_jax.networks.resnet import ResidualBlock, normalize


def mean_pool(x: jax.Array) -> jax.Array:
  """Takes the means of 2x2 sites: [B, 2H, 2W, C] -> [B, H, W, C]."""
  return nn.avg_pool(x, (2, 2), strides=(2, 2))


class MaskGITFields(nn.Module):
  """Holds the fields that MaskGITEncoder and MaskGITDecoder share."""

  D: Count
  channels: Count = 128
  multipliers: Counts = (1, 1, 2, 2, 4)
  blocks: Whole = 2
  dtype: jnp.dtype = jnp.float32

  @property
  def f(self) -> int:
    """The factor between the sides of an image and of its latent."""
    return 2 ** (len(self.multipliers) - 1)

  def _blocks(self, x, features):
    for _ in range(self.blocks):
      block = ResidualBlock(
        features, self.dtype, activation=nn.gelu, use_bias=False
      )
      x = block(x)
    return x


class MaskGITEncoder(MaskGITFields):
  """Encodes images: [B, f*H, f*W, 3] -> latents [B, H, W, D] float32.

  A level has `channels` times its entry of `multipliers` channels and `blocks`
  residual blocks; f doubles from each to the next, and `blocks` more follow the
  last. Computes in `dtype`. Raises InputError where a side does not divide by
  f.
  """

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    layers.check_sides(images, self.f)
    x = images.astype(self.dtype)
    x = layers.conv(self.channels, 3, self.dtype, use_bias=False)(x)
    for i, multiplier in enumerate(self.multipliers):
      x = self._blocks(mean_pool(x) if i else x, self.channels * multiplier)
    x = self._blocks(x, x.shape[-1])
    x = nn.gelu(normalize(x, self.dtype))
    z = layers.conv(self.D, 1, self.dtype, name='to_latent')(x)
    return z.astype(jnp.float32)


class MaskGITDecoder(MaskGITFields):
  """Decodes latents: [B, H, W, D] -> images [B, f*H, f*W, 3] float32.

  The mirror of `MaskGITEncoder`, with the same fields; nothing bounds the
  output. Raises ValueError where the latent does not have D channels.
  """

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    layers.check_width(z, self.D)
    features = self.channels * self.multipliers[-1]
    x = layers.conv(features, 3, self.dtype)(z.astype(self.dtype))
    x = self._blocks(x, features)
    for i, multiplier in reversed(list(enumerate(self.multipliers))):
      features = self.channels * multiplier
      x = self._blocks(x, features)
      if i:
        x = layers.conv(4 * features, 3, self.dtype)(x)
        x = layers.depth_to_space(x)
    x = nn.gelu(normalize(x, self.dtype))
    x = layers.conv(3, 3, self.dtype, name='to_image')(x)
    return x.astype(jnp.float32)
