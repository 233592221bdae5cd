"""JPEG as a function of arrays: what a file of some quality would decode to.

ITU-T T.81 (the transform and its tables, Annex K) and JFIF (the colours), as
libjpeg does them: its rule of quality, chroma halved by means of 2x2 pixels and
enlarged by weights 3/4 and 1/4. It agrees with libjpeg but for the rounding of
some values.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_LUMA = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ],
  np.float32,
)
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [
  [17, 18, 24, 47],
  [18, 21, 26, 66],
  [24, 26, 56, 99],
  [47, 66, 99, 99],
]
_TO_YCC = np.array(
  [
    [0.299, 0.587, 0.114],
    [-0.168735892, -0.331264108, 0.5],
    [0.5, -0.418687589, -0.081312411],
  ],
  np.float32,
)
_TO_RGB = np.linalg.inv(_TO_YCC.astype(np.float64)).astype(np.float32)
_GREY = np.array([[[0, 128, 128]]], np.float32)


def jpeg(image: Array, quality: Array | int, chroma: str) -> Array:
  """Returns an image as its JPEG file would decode.

  Args:
    image: [h, w, 3] in [0, 1].
    quality: 1 to 100, of libjpeg's scale.
    chroma: '420', at half the side, or '444'.
  """
  height, width, _ = image.shape
  unit = 16 if chroma == '420' else 8
  more = [(0, -side % unit) for side in (height, width)]
  image = jnp.pad(jnp.round(255 * image), (*more, (0, 0)), mode='edge')
  y, *others = jnp.moveaxis(jnp.round(_mix(_TO_YCC, image) + _GREY), -1, 0)
  planes = [_plane(y, _scaled(_LUMA, quality))]
  for plane in others:
    if chroma == '420':
      rows, columns = (side // 2 for side in plane.shape)
      split = plane.reshape(rows, 2, columns, 2)
      plane = jnp.round(jnp.mean(split, axis=(1, 3)))
    plane = _plane(plane, _scaled(_CHROMA, quality))
    # Twice the side, 'linear' weighs by 3/4 and 1/4.
    planes.append(jax.image.resize(plane, y.shape, 'linear'))
  ycc = jnp.stack([planes[0], *map(jnp.round, planes[1:])], axis=-1)
  rgb = jnp.round(_mix(_TO_RGB, ycc - _GREY))
  return jnp.clip(rgb, 0, 255)[:height, :width] / 255


def _mix(matrix: np.ndarray, image: Array) -> Array:
  return jnp.einsum('ij,hwj->hwi', matrix, image, precision='highest')


def _scaled(table: np.ndarray, quality: Array | int) -> Array:
  """The steps of a quality, by libjpeg's rule."""
  quality = jnp.asarray(quality, jnp.float32)
  percent = jnp.where(
    quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality
  )
  return jnp.clip(jnp.floor((table * percent + 50) / 100), 1, 255)


def _cosines() -> np.ndarray:
  """The orthonormal transform of eight values: [frequency, place]."""
  k, n = np.mgrid[:8, :8]
  matrix = np.cos((2 * n + 1) * k * math.pi / 16) / 2
  matrix[0] /= math.sqrt(2)
  return matrix.astype(np.float32)


def _plane(plane: Array, table: Array) -> Array:
  """Rounds the coefficients of blocks of 8x8 values to steps."""
  rows, columns = (side // 8 for side in plane.shape)
  blocks = (plane - 128).reshape(rows, 8, columns, 8)
  cosines, product = _cosines(), 'fi,rick,gk->rfcg'
  found = jnp.einsum(product, cosines, blocks, cosines, precision='highest')
  table = table.reshape(1, 8, 1, 8)
  found = jnp.round(found / table) * table
  product = 'fi,rfcg,gk->rick'
  blocks = jnp.einsum(product, cosines, found, cosines, precision='highest')
  return jnp.clip(jnp.round(blocks.reshape(plane.shape) + 128), 0, 255)
