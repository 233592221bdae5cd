"""Pictures of any size in arrays of a few sizes.

A program is compiled for each size of its arrays, and photographs have many
sizes. So a picture lies at the top left of an array whose sides are steps of a
ladder; what is computed of it does not read what is beyond it.
"""

import numpy as np

STEP = 64  # pixels; from 256 to 512 a side goes up by so many


def padded_side(side: int, multiple: int = 1) -> int:
  """Returns the step of the ladder for a side: a multiple, and no less.

  A function of the side alone, so that what comes along does not matter. Steps
  are of powers of two of `multiple`: below 256 pixels a quarter of the next
  power, above 512 an eighth, since small pictures are computed faster than
  programs are compiled.
  """
  units = -(-side // multiple)
  reach = 1 << (units - 1).bit_length()
  usual = 1 << (max(1, STEP // multiple).bit_length() - 1)
  step = max(1, reach // 8, min(reach // 4, usual))
  return -(-units // step) * step * multiple


def pad(image: np.ndarray, multiple: int = 1) -> np.ndarray:
  """Repeats the edge of [h, w, 3] at the bottom and right up to the ladder."""
  sides = ((0, padded_side(x, multiple) - x) for x in image.shape[:2])
  return np.pad(image, (*sides, (0, 0)), mode='edge')


def sizes_of(
  images: np.ndarray, height: np.ndarray, width: np.ndarray
) -> np.ndarray | None:
  """Returns the sizes int32 [B, 2] of pictures inside images [B, h, w, 3].

  None where pictures fill them: then nothing has to be left out.
  """
  sizes = np.stack([height, width], axis=1).astype(np.int32)
  return None if (sizes == images.shape[1:3]).all() else sizes


def pad_one(
  image: np.ndarray, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray | None]:
  """Makes a batch of one picture [h, w, 3]; returns it and `sizes_of` it."""
  height, width, _ = image.shape
  batch = pad(image, multiple)[None]
  return batch, sizes_of(batch, [height], [width])
