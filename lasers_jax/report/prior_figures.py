"""Draws pictures of what a prior over maps draws, and of what it knows.

Images are as in `grids`: uint8 or float in [0, 1], all of one size. Figures are
uint8 [H, W, 3].
"""

from collections.abc import Sequence

import numpy as np

from lasers_jax.core.images import as_rgb
from lasers_jax.report import charts, grids

PAD = 4
UNKNOWN = 128  # grey of sites that are not known
BAR = 14  # pixels; height of the bar of colours


def by_class(draws: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
  """Draws a row of images for each class, with its name at the left.

  Args:
    draws: of each class, [n, h, w, 3].
    names: of the classes.
  """
  return grids.grid(draws, list(names), PAD)


def by_guidance(
  draws: Sequence[np.ndarray], strengths: Sequence[float]
) -> np.ndarray:
  """Draws a row of images for each strength of guidance, of the same noise.

  Args:
    draws: at each strength, [n, h, w, 3]; a column has one key and one class.
    strengths: g, where 1 is no guidance.
  """
  return grids.grid(draws, [f'g = {x:g}' for x in strengths], PAD)


def beside_nearest(draws: np.ndarray, nearest: np.ndarray) -> np.ndarray:
  """Draws images above their nearest training images.

  Args:
    draws: [n, h, w, 3].
    nearest: the training image of each (`generation.nearest_images`).
  """
  rows = [draws, nearest, grids.error_image(draws, nearest, gain=1)]
  return grids.grid(rows, ['draw', 'nearest in\ntraining', 'difference'], PAD)


def bits_of_sites(
  images: np.ndarray, bits: np.ndarray, top: float | None = None
) -> np.ndarray:
  """Draws images, maps of the bits that a prior gives to their sites, and both.

  The bar below says which colour of a map is how many bits.

  Args:
    images: [n, h, w, 3].
    bits: [n, H, W], of all planes of a site; h and w are multiples of H and W.
    top: bits of the brightest colour; None: the 99.5th percentile.
  """
  images = as_rgb(images)
  if top is None:
    top = float(np.percentile(bits, 99.5))
  heat = _over_pixels(charts.heat(bits, top), images)
  grey = images.mean(axis=-1, keepdims=True)
  both = np.round((heat + grey) / 2).astype(np.uint8)
  figure = grids.grid([images, heat, both], ['image', 'bits', 'both'], PAD)
  return np.concatenate([figure, _bar(figure.shape[1], top)])


def unmasking(
  images: np.ndarray, known: np.ndarray, steps: Sequence[int]
) -> np.ndarray:
  """Draws an image after some steps of drawing; unknown sites are grey.

  Args:
    images: decoded after each of these steps, [n, h, w, 3].
    known: bool [n, H, W], the sites that were known then.
    steps: the number of each; the row says the first and the last.
  """
  shown = _hidden(images, known)
  label = f'after steps\n{steps[0]} to {steps[-1]}'
  return grids.grid([shown], [label], PAD)


def completions(
  originals: np.ndarray, known: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
  """Draws what is given of images, completions of it, and the originals.

  Args:
    originals: [n, h, w, 3], a column each.
    known: bool [n, H, W], the sites that were given.
    drawn: the completions, [k, n, h, w, 3], a row each.
  """
  rows = [_hidden(originals, known), *drawn, originals]
  labels = ['given', *(f'drawn {i}' for i in range(1, len(drawn) + 1))]
  return grids.grid(rows, [*labels, 'original'], PAD)


def _hidden(images: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Returns images, grey where a site is not known."""
  images = as_rgb(images)
  return np.where(_over_pixels(known[..., None], images), images, UNKNOWN)


def _over_pixels(values: np.ndarray, images: np.ndarray) -> np.ndarray:
  """Repeats values of sites [n, H, W, c] over the pixels of images."""
  rows, columns = (images.shape[i] // values.shape[i] for i in (1, 2))
  return values.repeat(rows, axis=1).repeat(columns, axis=2)


def _bar(width: int, top: float) -> np.ndarray:
  """Draws the colours of 0 to `top` bits, and these numbers at the ends."""
  low, high = grids.written('0'), grids.written(f'{top:.3g} bits')
  length = width - low.shape[1] - high.shape[1] - 2 * PAD
  colours = charts.heat(np.linspace(0, 1, length)[None], 1.0)
  height = max(low.shape[0], high.shape[0], BAR) + PAD
  canvas = np.full((height, width, 3), grids.BACKGROUND, np.uint8)
  left = PAD
  for part in low, colours.repeat(BAR, axis=0), high:
    canvas[: part.shape[0], left : left + part.shape[1]] = part
    left += part.shape[1]
  return canvas
