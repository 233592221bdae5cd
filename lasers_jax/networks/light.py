"""The small networks of VAElight, which stand in for those of latent diffusion.

Graphnull, github.com/Graphnull/VAElight (Apache-2.0). Both are sums of branches
that see or make a picture at several scales. Parameters have its names.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.core.ranges import Count
from lasers_jax.networks import layers

_SLOPE = 0.01


class LightFields(nn.Module):
  """Holds the fields that LightEncoder and LightDecoder share.

  Attributes:
    channels: of the widest layers of the decoder; other widths follow.
  """

  D: Count
  channels: Count = 64
  dtype: jnp.dtype = jnp.float32

  @property
  def f(self) -> int:
    """The factor between the sides of an image and of its latent."""
    return 8

  def _branch(self, x, names: list[str], kinds: str, widths, out: int):
    """Applies convolutions with a leaky ReLU between.

    Args:
      kinds: a letter each: 3x3, or 2x2 that halves (h) or doubles (d) a side.
      widths: of all but the last, for 64 channels.
      out: width of the last.
    """
    widths = [max(1, width * self.channels // 64) for width in widths]
    for i, (name, kind, width) in enumerate(
      zip(names, kinds, [*widths, out], strict=True)
    ):
      x = nn.leaky_relu(x, _SLOPE) if i else x
      x = layers.space_to_depth(x) if kind == 'h' else x
      size = 3 if kind == '3' else 1  # of 2x2 blocks, or giving them
      width = 4 * width if kind == 'd' else width
      x = layers.conv(width, size, self.dtype, name=name)(x)
      x = layers.depth_to_space(x) if kind == 'd' else x
    return x


def _numbered(prefix: str, first: int, last: int) -> list[str]:
  return [f'{prefix}{i}' for i in range(first, last + 1)]


class LightEncoder(LightFields):
  """Encodes images: [B, 8*H, 8*W, 3] -> latents [B, H, W, D] float32.

  One branch halves a side three times, the other sees means of 8x8 pixels.
  Computes in `dtype`. Raises InputError where a side does not divide by 8.
  """

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    layers.check_sides(images, self.f)
    x = images.astype(self.dtype)
    fine = _numbered('cv', 1, 6)
    z = self._branch(x, fine, 'h3h3h3', (16, 32, 32, 64, 64), self.D)
    x = nn.avg_pool(x, (self.f, self.f), (self.f, self.f))
    coarse = _numbered('cv', 14, 18)
    z += self._branch(x, coarse, '33333', (64, 64, 64, 128), self.D)
    return z.astype(jnp.float32)


class LightDecoder(LightFields):
  """Decodes latents: [B, H, W, D] -> images [B, 8*H, 8*W, 3] float32.

  Branches make a picture of 1/8, 1/4, 1/2 of a side, which is interpolated, and
  a whole one; nothing bounds the output. Raises ValueError where the latent
  does not have D channels.
  """

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    layers.check_width(z, self.D)
    z, total = z.astype(self.dtype), 0.0
    for f, prefix, kinds, widths in (
      (8, 'c2v', '3333', (8, 16, 32)),
      (4, 'c3v', '33d33', (8, 16, 16, 32)),
      (2, 'c4v', '33d33d33', (8, 16, 16, 32, 64, 64, 64)),
    ):
      names = _numbered(prefix, 1, len(kinds))
      x = self._branch(z, names, kinds, widths, 3)
      total += layers.BilinearUp(f)(x)
    names = [*_numbered('cv', 1, 10), 'to_image']
    widths = 8, 16, 16, 32, 64, 64, 64, 64, 64, 64
    total += self._branch(z, names, '33d33d33d33', widths, 3)
    return total.astype(jnp.float32)
