"""The trunks of LPIPS: VGG16 and AlexNet up to their last convolution.

Both take images as `scaled` gives them and return five maps, each after its
ReLU, the finest first. With `sizes`, int32 [B, 2], the heights and widths of
images at the top left, the rest is padding that is not read; `map_sizes` gives
the parts of each map that are of the image.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lasers_jax.errors import InputError
from lasers_jax.networks.masks import only_first

# Mean and deviation of ImageNet's pixels, RGB in [0, 1]; LPIPS gives them for
# [-1, 1], as a shift by -.030, -.088, -.188 and a scale of .458, .448, .450.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 1, 1, 3)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 1, 1, 3)


def scaled(images: jax.Array) -> jax.Array:
  """Returns images [B, h, w, 3] in [0, 1] in the scale of the networks.

  float32. Raises ValueError where they are no floats of that shape.
  """
  floats = jnp.issubdtype(images.dtype, jnp.floating)
  if images.ndim != 4 or images.shape[-1] != 3 or not floats:
    raise ValueError(
      f'expected images [B, h, w, 3] of floats, got {images.dtype} of '
      f'{images.shape}'
    )
  return (images.astype(jnp.float32) - _MEAN) / _DEVIATION


def check_sides(images: jax.Array, minimum: int, network: str) -> None:
  """Raises InputError if a side of images [B, h, w, C] is too small."""
  height, width = images.shape[1:3]
  if min(height, width) < minimum:
    raise InputError(
      f'images of {height}x{width} pixels are too small for {network}: it '
      f'needs {minimum} pixels a side or more.'
    )


def conv(features, size, dtype, name, stride=1, padding=None) -> nn.Conv:
  """Returns a convolution padded by size // 2; on float32 not rounded."""
  return nn.Conv(
    features,
    (size, size),
    stride,
    padding=size // 2 if padding is None else padding,
    dtype=dtype,
    precision=jax.lax.Precision.HIGHEST,
    conv_general_dilated=_convolve,
    name=name,
  )


def _convolve(x, kernel, strides, padding, *, precision, **options):
  """Convolves; 2×2 maps, for which XLA takes 27 times as long on a CPU, by a
  product with their patches."""
  sizes = x.shape[1:3], kernel.shape[:2], tuple(strides)
  if sizes != ((2, 2), (3, 3), (1, 1)):
    return jax.lax.conv_general_dilated(
      x, kernel, strides, padding, precision=precision, **options
    )
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  corners = [(i, j) for i in range(3) for j in range(3)]
  patches = jnp.concatenate(
    [x[:, i : i + 2, j : j + 2] for i, j in corners], axis=-1
  )
  kernel = kernel.reshape(-1, kernel.shape[-1])
  return jnp.matmul(patches, kernel, precision=precision)


class VGG16(nn.Module):
  """Maps [B, h, w, 3] to relu1_2, 2_2, 3_3, 4_3 and 5_3 of VGG16.

  Their sides are those of the image over 1, 2, 4, 8, 16, rounded down, their
  channels 64, 128, 256, 512, 512. Simonyan and Zisserman, arXiv 1409.1556,
  configuration D. Computes in `dtype`. Raises InputError where a side is under
  16 pixels.
  """

  dtype: jnp.dtype = jnp.float32
  minimum_side = 16  # pixels a side

  @staticmethod
  def map_sizes(sizes: jax.Array | None) -> list[jax.Array | None]:
    return [None if sizes is None else sizes // 2**i for i in range(5)]

  @nn.compact
  def __call__(
    self, x: jax.Array, sizes: jax.Array | None = None
  ) -> list[jax.Array]:
    check_sides(x, self.minimum_side, 'VGG16')
    x = x.astype(self.dtype)
    maps, i, sizes = [], 0, self.map_sizes(sizes)
    for features, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
      if maps:
        x = nn.max_pool(x, (2, 2), (2, 2))
      for _ in range(count):
        x = only_first(x, sizes[len(maps)])
        x = nn.relu(conv(features, 3, self.dtype, f'conv{i}')(x))
        i += 1
      maps.append(x)
    return maps


class AlexNet(nn.Module):
  """Maps [B, h, w, 3] to the five ReLU maps of AlexNet.

  Their channels are 64, 192, 384, 256, 256: the network of Krizhevsky, arXiv
  1404.5997, as in torchvision. Computes in `dtype`. Raises InputError where a
  side is under 31 pixels.
  """

  dtype: jnp.dtype = jnp.float32
  minimum_side = 31  # pixels a side

  @staticmethod
  def map_sizes(sizes: jax.Array | None) -> list[jax.Array | None]:
    if sizes is None:
      return [None] * 5
    first = (sizes - 7) // 4 + 1
    second = (first - 3) // 2 + 1
    return [first, second, *[(second - 3) // 2 + 1] * 3]

  @nn.compact
  def __call__(
    self, x: jax.Array, sizes: jax.Array | None = None
  ) -> list[jax.Array]:
    check_sides(x, self.minimum_side, 'AlexNet')
    x = only_first(x.astype(self.dtype), sizes)
    maps = [nn.relu(conv(64, 11, self.dtype, 'conv0', 4, 2)(x))]
    sizes = self.map_sizes(sizes)
    layers = ((192, 5), (384, 3), (256, 3), (256, 3))
    for i, (features, size) in enumerate(layers, 1):
      x = maps[-1]
      if i < 3:
        x = nn.max_pool(x, (3, 3), (2, 2))
      x = only_first(x, sizes[i])
      maps.append(nn.relu(conv(features, size, self.dtype, f'conv{i}')(x)))
    return maps
