"""Resizes images as metrics prescribe: it is part of their definition."""

import numpy as np
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC


def clean_resize(images, side):
  """Resizes as clean-fid does: uint8 [B, h, w, 3] -> [B, side, side, 3].

  float32, values still in [0, 255]. Each channel is resized as floats by
  Pillow's bicubic filter, which is widened where it shrinks (antialiased),
  clipped, and not rounded; h and w need not agree (Parmar et al., arXiv
  2104.11222). Raises ValueError where the images are not uint8 [B, h, w, 3].
  """
  _check(images)
  resized = np.empty((len(images), side, side, 3), np.float32)
  for image, result in zip(images, resized, strict=True):
    for channel in range(3):
      plane = Image.fromarray(image[..., channel].astype(np.float32))
      result[..., channel] = plane.resize((side, side), BICUBIC)
  return resized.clip(0, 255, out=resized)


def cmmd_resize(images, side=336):
  """Resizes as CMMD does: uint8 [B, h, w, 3] -> uint8 [B, side, side, 3].

  The central square of the shorter side (an odd rest falls to the bottom and
  the right), then Pillow's antialiased bicubic filter on uint8, rounded
  (Jayasumana et al., arXiv 2401.09603, published code). Raises ValueError where
  the images are not uint8 [B, h, w, 3].
  """
  _check(images)
  _, h, w, _ = images.shape
  short = min(h, w)
  top, left = (h - short) // 2, (w - short) // 2
  crops = images[:, top : top + short, left : left + short]
  resized = np.empty((len(images), side, side, 3), np.uint8)
  for crop, result in zip(crops, resized, strict=True):
    square = Image.fromarray(np.ascontiguousarray(crop))
    result[:] = square.resize((side, side), BICUBIC)
  return resized


def _check(images):
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(
      f'images must be uint8 [B, h, w, 3], got {images.dtype} {images.shape}'
    )
