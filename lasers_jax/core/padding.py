"""Images of any size in arrays of a few sizes.

A program is compiled for each size of its arrays, and photographs have many
sizes. So an image lies at the top left of an array whose sides are steps of a
ladder; computations do not read the rest of the array.
"""

from collections.abc import Sequence

import numpy as np

STEP = 64  # pixels; from 256 to 512 a side goes up by so many


def round_up(side, multiple: int):
  """Rounds an int, or arrays, up to a multiple."""
  return -(-side // multiple) * multiple


def padded_side(side: int, pad_multiple: int = 1) -> int:
  """Rounds a side up to a step of the ladder, a multiple of `pad_multiple`.

  It is a function of the side alone, whatever other images there are. Steps
  are of powers of two of `pad_multiple`: below 256 pixels a quarter of the next
  power, above 512 an eighth, since small images are computed faster than
  programs are compiled.
  """
  units = -(-side // pad_multiple)
  reach = 1 << (units - 1).bit_length()
  usual = 1 << (max(1, STEP // pad_multiple).bit_length() - 1)
  step = max(1, reach // 8, min(reach // 4, usual))
  return round_up(units, step) * pad_multiple


def padded_sides(image: np.ndarray, pad_multiple: int = 1) -> np.ndarray:
  """Returns the steps of the ladder for the sides of [h, w, 3]: int [2]."""
  return np.array([padded_side(x, pad_multiple) for x in image.shape[:2]])


def common_sides(
  images: Sequence[np.ndarray] | np.ndarray, pad_multiple: int
) -> np.ndarray:
  """Returns sides for each of some images [h, w, 3]: int [n, 2].

  Few images are computed sooner in arrays of one size than programs are
  compiled for all their sizes; those below a quarter of the area go alone.
  """
  own = np.array([padded_sides(x, pad_multiple) for x in images])
  most = own.max(axis=0)
  small = 4 * own.prod(axis=1) < most.prod()
  return np.where(small[:, None], own, most)


def pad(
  image: np.ndarray, pad_multiple: int = 1, sides: np.ndarray | None = None
) -> np.ndarray:
  """Repeats the edge of [h, w, 3] at the bottom and right, up to the ladder.

  Or up to other sides.
  """
  if sides is None:
    sides = padded_sides(image, pad_multiple)
  h, w, _ = image.shape
  return np.pad(
    image, ((0, sides[0] - h), (0, sides[1] - w), (0, 0)), mode='edge'
  )


def sizes_of(
  images: np.ndarray, height: np.ndarray, width: np.ndarray
) -> np.ndarray | None:
  """Returns the sizes int32 [B, 2] of images inside images [B, h, w, 3].

  None where images fill them: then nothing has to be left out.
  """
  sizes = np.stack([height, width], axis=1).astype(np.int32)
  return None if (sizes == images.shape[1:3]).all() else sizes


def pad_one(
  image: np.ndarray, pad_multiple: int = 1, sides: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
  """Makes a batch of one image [h, w, 3]; returns it and `sizes_of` it."""
  height, width, _ = image.shape
  batch = pad(image, pad_multiple, sides)[None]
  return batch, sizes_of(batch, np.array([height]), np.array([width]))
