"""The residual network of the VQGAN family, for images of 64 to 256 pixels.

Esser et al., arXiv 2012.09841, appendix; the same plan as in latent diffusion.
Two parts are exchanged for speed: a side is halved by one 4x4 convolution
instead of a strided 3x3 one, which `downsample='conv3'` is, and doubled by
`NearestUpConv`, which gives the numbers of nearest neighbour and 3x3 at 4/9 of
the products.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.core.ranges import Count, Counts, Whole
from lasers_jax.errors import unknown
from lasers_jax.networks import layers

DOWNSAMPLES = {'conv4': 4, 'conv3': 3}  # sides of kernels


def normalize(x: jax.Array, dtype, groups: int = 32) -> jax.Array:
  """Normalises groups of [B, H, W, C]; float32 inside, `dtype` outside.

  Where `groups` does not divide C, it takes their greatest common divisor.
  """
  groups = math.gcd(groups, x.shape[-1])
  return nn.GroupNorm(groups, epsilon=1e-6, dtype=dtype)(x)


class ResidualBlock(nn.Module):
  """Adds a residual of two convolutions: [B, H, W, C] -> [.., features].

  It is two times (GroupNorm, `activation`, conv3x3). A 1x1 convolution brings x
  to `features` where they differ from C. `use_bias` is of all convolutions.
  """

  features: int
  dtype: jnp.dtype = jnp.float32
  activation: Callable[[jax.Array], jax.Array] = nn.swish
  use_bias: bool = True
  groups: int = 32

  @nn.compact
  def __call__(self, x):
    def conv(size, name=None):
      return layers.conv(self.features, size, self.dtype, self.use_bias, name)

    h = x
    for _ in range(2):
      h = conv(3)(self.activation(normalize(h, self.dtype, self.groups)))
    if x.shape[-1] != self.features:
      x = conv(1, 'shortcut')(x)
    return x + h


class Attention(nn.Module):
  """Adds attention of one head between all sites: [B, H, W, C] -> the same.

  `mask`, bool [B, H, W], says which sites may be attended to; None: all.
  """

  dtype: jnp.dtype = jnp.float32
  groups: int = 32

  @nn.compact
  def __call__(self, x, mask=None):
    b, h, w, c = x.shape
    if mask is not None:
      mask = mask.reshape(b, 1, 1, h * w)
    qkv = layers.conv(3 * c, 1, self.dtype, name='qkv')
    qkv = qkv(normalize(x, self.dtype, self.groups))
    q, k, v = jnp.split(qkv.reshape(b, h * w, 1, 3 * c), 3, axis=-1)
    y = jax.nn.dot_product_attention(q, k, v, mask=mask).reshape(b, h, w, c)
    return x + layers.conv(c, 1, self.dtype, name='out')(y)


class Level(nn.Module):
  """Applies residual blocks, each followed by attention where asked."""

  features: int
  blocks: int
  attend: bool
  dtype: jnp.dtype = jnp.float32
  groups: int = 32

  @nn.compact
  def __call__(self, x):
    for _ in range(self.blocks):
      x = ResidualBlock(self.features, self.dtype, groups=self.groups)(x)
      if self.attend:
        x = Attention(self.dtype, self.groups)(x)
    return x


class Middle(nn.Module):
  """Applies a residual block, attention, and another block; shapes stay."""

  attend: bool = True
  dtype: jnp.dtype = jnp.float32
  groups: int = 32

  @nn.compact
  def __call__(self, x):
    features = x.shape[-1]
    x = ResidualBlock(features, self.dtype, groups=self.groups)(x)
    if self.attend:
      x = Attention(self.dtype, self.groups)(x)
    return ResidualBlock(features, self.dtype, groups=self.groups)(x)


class ResNetFields(nn.Module):
  """Holds the fields that ResNetEncoder and ResNetDecoder share.

  Published networks of the family differ in the last six.

  Attributes:
    attention: factors of the levels that attend.
    groups: of a normalisation; where a width does not divide by them, their
      greatest common divisor.
    downsample: what halves a side, 'conv4' or 'conv3', which pads only at the
      right and the bottom, as the family does.
    middle_attention: whether the blocks at the coarsest level attend.
    from_latent: width that a 1x1 convolution brings the latent to before the
      decoder; 0 is without.
    decoder_channels: `channels` of the decoder; None: the same.
  """

  D: Count
  channels: Count = 128
  multipliers: Counts = (1, 1, 2, 2, 4)
  blocks: Whole = 2
  attention: tuple[Count, ...] = (16,)
  dtype: jnp.dtype = jnp.float32
  groups: Count = 32
  downsample: str = 'conv4'
  middle_attention: bool = True
  from_latent: Whole = 0
  decoder_channels: Count | None = None

  def __post_init__(self):
    if self.downsample not in DOWNSAMPLES:
      raise unknown('network.downsample', self.downsample, DOWNSAMPLES)
    super().__post_init__()

  @property
  def f(self) -> int:
    """The factor between the sides of an image and of its latent."""
    return 2 ** (len(self.multipliers) - 1)

  def _level(self, i, channels, blocks):
    attend = 2**i in self.attention
    features = channels * self.multipliers[i]
    return Level(features, blocks, attend, self.dtype, self.groups)

  def _middle(self):
    return Middle(self.middle_attention, self.dtype, self.groups)

  def _normalized(self, x):
    return nn.swish(normalize(x, self.dtype, self.groups))


class ResNetEncoder(ResNetFields):
  """Encodes images: [B, f*H, f*W, 3], about [-1, 1] -> [B, H, W, D] float32.

  A level has `channels` times its entry of `multipliers` channels; f doubles
  from each to the next. Levels whose own down-sampling factor is in `attention`
  attend: a factor, not a resolution, so any sides that divide by f will do. (In
  a 256 pixel network, resolution 16 is the factor 16.) Computes in `dtype`.
  Raises InputError where a side does not divide by f.
  """

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    layers.check_sides(images, self.f)
    x = layers.conv(self.channels, 3, self.dtype)(images.astype(self.dtype))
    size = DOWNSAMPLES[self.downsample]
    for i in range(len(self.multipliers)):
      if i:
        x = layers.DownConv(x.shape[-1], self.dtype, size)(x)
      x = self._level(i, self.channels, self.blocks)(x)
    x = self._normalized(self._middle()(x))
    z = layers.conv(self.D, 3, self.dtype, name='to_latent')(x)
    return z.astype(jnp.float32)


class ResNetDecoder(ResNetFields):
  """Decodes latents: [B, H, W, D] -> images [B, f*H, f*W, 3] float32.

  The mirror of `ResNetEncoder`, with the same fields and, as in the family, one
  residual block more at each level; nothing bounds the output. Raises
  ValueError where the latent does not have D channels.
  """

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    layers.check_width(z, self.D)
    channels = self.decoder_channels or self.channels
    x = z.astype(self.dtype)
    if self.from_latent:
      x = layers.conv(self.from_latent, 1, self.dtype, name='from_latent')(x)
    x = layers.conv(channels * self.multipliers[-1], 3, self.dtype)(x)
    x = self._middle()(x)
    for i in reversed(range(len(self.multipliers))):
      x = self._level(i, channels, self.blocks + 1)(x)
      if i:
        x = layers.NearestUpConv(x.shape[-1], self.dtype)(x)
    x = layers.conv(3, 3, self.dtype, name='to_image')(self._normalized(x))
    return x.astype(jnp.float32)
