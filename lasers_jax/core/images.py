"""Images as arrays: uint8 in files and on the host, float32 in computations."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from lasers_jax.core.files import written_whole


def to_float(images):
  """Returns images as float32 in [0, 1].

  Args:
    images: [...], uint8, or floats that are in [0, 1] already.

  Raises:
    ValueError: they are of another type.
  """
  if images.dtype == jnp.uint8:
    return images.astype(jnp.float32) / 255
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f'images must be uint8 or float, got {images.dtype}')
  return images.astype(jnp.float32)


@jax.jit
def to_uint8_range(x):
  """Returns float32 images as a PNG file would hold them: clipped and rounded.

  x: [...], nominally in [0, 1]; the result is n / 255 for a whole n. NaN stays
  NaN.
  """
  return jnp.round(jnp.clip(to_float(x), 0, 1) * 255) / 255


def to_uint8(rounded: jax.Array) -> np.ndarray:
  """Takes what `to_uint8_range` returns to the host; NaN is black."""
  return np.round(255 * np.nan_to_num(np.asarray(rounded))).astype(np.uint8)


def save_png(path, picture):
  """Writes a picture to a PNG file, whole or not at all.

  The folder must exist. A file of that name is replaced in one act.
  """
  with written_whole(path) as file:
    Image.fromarray(as_rgb(picture)).save(file, format='PNG')


def as_rgb(picture):
  """Returns uint8 [..., h, w, 3] of one picture, or of an array of them.

  Args:
    picture: uint8 or float in [0, 1]: [h, w], [..., h, w, 1] or [..., h, w, 3].

  Raises:
    ValueError: it has another shape or type.
  """
  picture = np.asarray(picture)
  if picture.ndim == 2:
    picture = picture[..., None]
  if picture.ndim < 3 or picture.shape[-1] not in (1, 3):
    raise ValueError(f'a picture is [h, w, 3], got {picture.shape}')
  if picture.dtype != np.uint8:
    if np.issubdtype(picture.dtype, np.integer):
      raise ValueError(f'a picture is uint8 or float, got {picture.dtype}')
    # A diverged model gives NaN; its picture is black, not a crash.
    picture = np.nan_to_num(picture.astype(np.float32), nan=0.0)
    picture = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
  return np.broadcast_to(picture, (*picture.shape[:-1], 3))
