"""Images as arrays: uint8 in files and on the host, float32 in computations."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from lasers_jax.core.storage import written_whole
from lasers_jax.errors import InputError


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


def check_images(images, name='images') -> np.ndarray:
  """Returns images [B, h, w, 3] or [h, w, 3] as an array, once it is checked.

  Args:
    images: uint8, or float in [0, 1].
    name: of the argument, for the message.

  Raises:
    InputError: the shape, the type or a value cannot be used.
  """
  try:
    images = np.asarray(images)
  except ValueError as error:  # of different sizes
    raise InputError(f'{name} must be of one size: call once a size') from error
  if images.ndim not in (3, 4) or images.shape[-1] != 3:
    raise InputError(
      f'{name} must be [B, h, w, 3] or [h, w, 3], RGB, not '
      f'{list(images.shape)}{_hint(images.shape)}'
    )
  if not images.size:
    raise InputError(f'{name} {list(images.shape)} hold no pixel')
  if images.dtype == np.uint8:
    return images
  if not np.issubdtype(images.dtype, np.floating):
    raise InputError(
      f'{name} must be uint8, or float in [0, 1], not {images.dtype}'
    )
  low, high = images.min(), images.max()
  if not (low >= 0 and high <= 1):  # NaN is neither
    found = 'hold NaN' if np.isnan(low) else f'reach from {low:g} to {high:g}'
    raise InputError(f'{name} of {images.dtype} must be in [0, 1], and {found}')
  return images.astype(np.float32)


def as_batch(images) -> tuple[np.ndarray, bool]:
  """Returns checked images [B, h, w, 3], and whether there was a single one."""
  images = check_images(images)
  single = images.ndim == 3
  return images[None] if single else images, single


def check_one(image) -> np.ndarray:
  """Returns one image uint8 [h, w, 3] as an array, once it is checked.

  Raises:
    InputError: it is something else.
  """
  image = check_images(image, 'image')
  if image.ndim != 3 or image.dtype != np.uint8:
    raise InputError('compress takes one image uint8 [h, w, 3]')
  return image


def _hint(shape: tuple[int, ...]) -> str:
  """Says how an array of a common other shape becomes images."""
  if len(shape) == 2 or (len(shape) in (3, 4) and shape[-1] == 1):
    return ': a grey image needs its channel three times'
  if len(shape) in (3, 4) and shape[-1] == 4:
    return ': leave out the fourth channel'
  if len(shape) in (3, 4) and shape[-3] == 3:
    return ': channels come last'
  return ''


@jax.jit
def to_uint8_range(x):
  """Returns float32 images as a PNG file would hold them: clipped and rounded.

  x: [...], nominally in [0, 1]; the result is n / 255 for a whole n. NaN stays
  NaN.
  """
  return jnp.round(jnp.clip(to_float(x), 0, 1) * 255) / 255


def to_uint8(rounded: jax.Array) -> np.ndarray:
  """Turns images of `to_uint8_range` into uint8 on the host; NaN is black."""
  return np.round(255 * np.nan_to_num(np.asarray(rounded))).astype(np.uint8)


def crop_center(image, height, width):
  """Returns the middle [height, width, c] of an image [h, w, c].

  An odd remainder leaves the extra pixel at the bottom or right; a side that is
  smaller stays as it is.
  """
  top = max(0, (image.shape[0] - height) // 2)
  left = max(0, (image.shape[1] - width) // 2)
  return image[top : top + height, left : left + width]


def save_png(path, image):
  """Writes an image to a PNG file, whole or not at all.

  The folder must exist. A file of that name is replaced atomically.
  """
  with written_whole(path) as file:
    Image.fromarray(as_rgb(image)).save(file, format='PNG')


def as_rgb(image):
  """Returns uint8 [..., h, w, 3] of one image, or of an array of them.

  Args:
    image: uint8 or float in [0, 1]: [h, w], [..., h, w, 1] or [..., h, w, 3].

  Raises:
    ValueError: it has another shape or type.
  """
  image = np.asarray(image)
  if image.ndim == 2:
    image = image[..., None]
  if image.ndim < 3 or image.shape[-1] not in (1, 3):
    raise ValueError(f'an image is [h, w, 3], got {image.shape}')
  if image.dtype != np.uint8:
    if np.issubdtype(image.dtype, np.integer):
      raise ValueError(f'an image is uint8 or float, got {image.dtype}')
    # A diverged model gives NaN; its image is black, not a crash.
    image = np.nan_to_num(image.astype(np.float32), nan=0.0)
    image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
  return np.broadcast_to(image, (*image.shape[:-1], 3))
