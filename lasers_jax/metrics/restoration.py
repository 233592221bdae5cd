"""Metrics of restorations: luma, holes, colours; one value an image.

Images are [B, h, w, 3], RGB in [0, 1]. `sizes`, int32 [B, 2], has height and
width of each image, which lies at the top left; the rest does not count.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.metrics.similarity import PSNR_CAP

# Y of ITU-R BT.601 in studio range, 16 to 235, by which papers compare.
_STUDIO = np.array([65.481, 128.553, 24.966], np.float32) / 255
_TO_XYZ = np.array(
  [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
  ],
  np.float32,
)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)  # D65


def psnr_y(
  a: Array, b: Array, sizes: Array | None = None, border: int = 0
) -> Array:
  """Returns the PSNR of luma, [B], in dB: BT.601, studio range, peak 255.

  Args:
    border: pixels that are left out at each edge.
  """
  error = jnp.square(_dot(a - b, _STUDIO))
  inside = _inside(a.shape, sizes, border)
  return _decibels(_mean(error, inside))


def psnr_hole(a: Array, b: Array, known: Array, sizes=None) -> Array:
  """Returns the PSNR inside holes, [B], in dB, peak 1; 100 where there is none.

  Args:
    known: [B, h, w, 1], 0 in the holes.
  """
  error = jnp.mean(jnp.square(a - b), axis=-1)
  return _decibels(_mean(error, _holes(known, sizes)))


def l1_hole(a: Array, b: Array, known: Array, sizes=None) -> Array:
  """Returns the mean absolute error inside holes, [B]; 0 without any."""
  error = jnp.mean(jnp.abs(a - b), axis=-1)
  return _mean(error, _holes(known, sizes))


def hole_share(known: Array, sizes=None) -> Array:
  """Returns the share of pixels that lie in holes: [B]."""
  inside = _inside(known.shape, sizes)
  return _mean(1 - known[..., 0], jnp.broadcast_to(inside, known.shape[:3]))


def chroma_error(a: Array, b: Array, sizes=None) -> Array:
  """Returns the mean distance of a and b of CIELAB: [B]."""
  off = (_lab(a) - _lab(b))[..., 1:]
  return _mean(jnp.sqrt(jnp.sum(off**2, axis=-1)), _inside(a.shape, sizes))


def colourfulness(images: Array, sizes=None) -> Array:
  """Returns how colourful images are: [B].

  D. Hasler and S. Süsstrunk, "Measuring colourfulness in natural images", SPIE
  2003, of values in 0 to 255.
  """
  red, green, blue = jnp.moveaxis(255 * images, -1, 0)
  inside = _inside(images.shape, sizes)
  means, variances = 0.0, 0.0
  for opponent in (red - green, (red + green) / 2 - blue):
    mean = _mean(opponent, inside)
    means += mean**2
    off = jnp.square(opponent - mean[:, None, None])
    variances += _mean(off, inside)
  return jnp.sqrt(variances) + 0.3 * jnp.sqrt(means)


def _dot(images: Array, weights: np.ndarray) -> Array:
  """The sum over channels, in float32 on every device."""
  return sum(float(w) * images[..., i] for i, w in enumerate(weights))


def _decibels(error: Array) -> Array:
  return -10 * jnp.log10(jnp.maximum(error, 10 ** (-PSNR_CAP / 10)))


def _mean(values: Array, weights: Array) -> Array:
  """The weighted means of [B, h, w]: [B]; 0 where nothing has a weight."""
  weights = jnp.broadcast_to(weights, values.shape)
  total = jnp.sum(weights, axis=(1, 2))
  return jnp.sum(weights * values, axis=(1, 2)) / jnp.maximum(total, 1e-6)


def _inside(shape, sizes: Array | None, border: int = 0) -> Array:
  """1 inside images, away from their edges: float32 [B or 1, h, w]."""
  _, height, width, _ = shape
  rows = jnp.arange(height)[None, :, None]
  columns = jnp.arange(width)[None, None, :]
  if sizes is None:
    sizes = jnp.array([[height, width]])
  bottom, right = (sizes[:, i, None, None] - border for i in (0, 1))
  inside = (rows >= border) & (columns >= border)
  return (inside & (rows < bottom) & (columns < right)).astype(jnp.float32)


def _holes(known: Array, sizes: Array | None) -> Array:
  return (1 - known[..., 0]) * _inside(known.shape, sizes)


def _lab(images: Array) -> Array:
  """CIELAB of sRGB, white D65."""
  low = images / 12.92
  high = ((jnp.maximum(images, 0.04045) + 0.055) / 1.055) ** 2.4
  linear = jnp.where(images <= 0.04045, low, high)
  xyz = [
    _dot(linear, row / white)
    for row, white in zip(_TO_XYZ, _WHITE, strict=True)
  ]
  x, y, z = (
    jnp.where(
      t > (6 / 29) ** 3,
      jnp.cbrt(jnp.maximum(t, 1e-6)),
      t / (3 * (6 / 29) ** 2) + 4 / 29,
    )
    for t in xyz
  )
  return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
