"""Resizes images."""

import numpy as np
from PIL import Image


def resize_shorter(
  image: np.ndarray, side: int, shape: tuple[int, int] | None = None
) -> np.ndarray:
  """Resizes uint8 [h, w, 3] so that the shorter side is `side`.

  Bicubic with antialiasing (PIL), the aspect ratio kept to the nearest pixel.

  Args:
    image: to resize.
    side: in pixels.
    shape: height and width of an image that was decoded at a half, a quarter or
      an eighth of them; None for those that it has.
  """
  height, width = shape or image.shape[:2]
  shorter = min(height, width)
  size = round(width * side / shorter), round(height * side / shorter)
  if size == image.shape[1::-1]:
    return image
  # Decoded at a half of an odd size, the last pixel is half of the image.
  part = round(shorter / min(image.shape[:2]))
  box = (0, 0, width / part, height / part) if shape else None
  return np.asarray(
    Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box)
  )
