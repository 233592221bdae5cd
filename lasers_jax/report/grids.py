"""Draws grids of images and error maps.

An image is [h, w, 3] (or grey: [h, w], [h, w, 1]), uint8 or float in [0, 1].
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lasers_jax.core.images import as_rgb
from lasers_jax.inference import MOST_ATOMS

BACKGROUND = 245
INK = (60, 60, 60)
FONT_SIZE = 16
SMALLEST_CELL = 96  # pixels; smaller images are enlarged
LARGEST_CELL = 256  # pixels; larger images are shrunk
ATOM_CELL = 48  # pixels


def grid(rows, labels=None, pad=2, scale=None):
  """Returns rows of images on a light ground, uint8 [H, W, 3].

  rows: a list of rows, each a list of images or an array [n, h, w, 3]; rows
  may differ in length, images in size. A row has one height: its lowest
  image's, at most 256 pixels, to which the others are shrunk; under 96 pixels
  the row is enlarged by a whole factor with nearest neighbour. An int `scale`
  sets that factor, and then nothing is shrunk. `labels` (ASCII), one a row,
  stand at the left. `pad` pixels lie around and between the cells. Raises
  ValueError where rows are empty or the labels do not match them.
  """
  if not len(rows):
    raise ValueError('a grid needs at least one row')
  strips = [_strip(_fit_row(row, scale), pad) for row in rows]
  return _stack(strips, labels, pad)


def error_image(original, reconstruction, gain=5):
  """Returns gain * |original - reconstruction|, clipped, as uint8 RGB.

  Both are rounded to uint8 first, so it shows the error of the files. Leading
  dimensions are kept. Raises ValueError where the shapes differ.
  """
  original, reconstruction = as_rgb(original), as_rgb(reconstruction)
  if original.shape != reconstruction.shape:
    raise ValueError(
      f'original {original.shape} and reconstruction {reconstruction.shape} '
      'differ in shape'
    )
  error = np.abs(original.astype(np.float32) - reconstruction)
  return np.clip(np.round(gain * error), 0, 255).astype(np.uint8)


def reconstructions(originals, reconstructions, atoms=None, between=None):
  """Returns originals above reconstructions above errors, uint8 [H, W, 3].

  originals, reconstructions: lists of images or arrays [n, h, w, 3], pairs of
  one size. atoms: [k, h, w, 3], what single atoms decode to; the first 64 are
  shown in a block below. between: other rows of images below the originals, by
  their labels. Raises ValueError where the images do not pair up.
  """
  pairs = list(zip(originals, reconstructions, strict=True))
  errors = [error_image(*pair, gain=5) for pair in pairs]
  pad = 4
  between = between or {}
  rows = (originals, *between.values(), reconstructions, errors)
  strips = [_strip(_fit_row(row), pad) for row in rows]
  labels = ['original', *between, 'reconstruction', 'error x5']
  if atoms is not None and len(atoms):
    strips.append(_atom_block(atoms[:MOST_ATOMS], strips[0].shape[1]))
    shown = f'\n{MOST_ATOMS} of {len(atoms)}' if len(atoms) > MOST_ATOMS else ''
    labels.append('atoms decoded' + shown)
  return _stack(strips, labels, pad)


def _fit_row(row, scale=None):
  cells = [as_rgb(image) for image in row]
  if not cells:
    raise ValueError('a row needs at least one image')
  if scale is None:
    height = min(LARGEST_CELL, *(cell.shape[0] for cell in cells))
    cells = [_shrink(cell, height) for cell in cells]
    scale = math.ceil(SMALLEST_CELL / height)
  return [_enlarge(cell, scale) for cell in cells]


def _shrink(image, height):
  if image.shape[0] == height:
    return image
  width = max(1, round(image.shape[1] * height / image.shape[0]))
  # Pillow widens the filter when it shrinks: no aliasing.
  small = Image.fromarray(image)
  return np.asarray(small.resize((width, height), Image.Resampling.LANCZOS))


def _enlarge(image, scale):
  return image.repeat(scale, axis=0).repeat(scale, axis=1)


def _ground(height, width):
  return np.full((height, width, 3), BACKGROUND, np.uint8)


def _paste(canvas, image, top, left):
  height, width = image.shape[:2]
  canvas[top : top + height, left : left + width] = image


def _strip(cells, pad):
  """Sets cells side by side."""
  height = max(cell.shape[0] for cell in cells)
  width = sum(cell.shape[1] + pad for cell in cells) - pad
  strip = _ground(height, width)
  left = 0
  for cell in cells:
    _paste(strip, cell, 0, left)
    left += cell.shape[1] + pad
  return strip


def _stack(strips, labels, pad):
  """Sets strips under each other, with their labels at the left."""
  if labels is not None:
    strips = _label(strips, labels)
  height = pad + sum(strip.shape[0] + pad for strip in strips)
  width = pad + max(strip.shape[1] for strip in strips) + pad
  canvas = _ground(height, width)
  top = pad
  for strip in strips:
    _paste(canvas, strip, top, pad)
    top += strip.shape[0] + pad
  return canvas


def _label(strips, labels):
  """Sets each label at the left of its strip, half-way down."""
  if len(labels) != len(strips):
    raise ValueError(f'{len(labels)} labels for {len(strips)} rows')
  texts = [written(label) for label in labels]
  left = max(text.shape[1] for text in texts)
  labelled = []
  for strip, text in zip(strips, texts, strict=True):
    height = max(strip.shape[0], text.shape[0])
    canvas = _ground(height, left + strip.shape[1])
    _paste(canvas, text, (height - text.shape[0]) // 2, 0)
    _paste(canvas, strip, 0, left)
    labelled.append(canvas)
  return labelled


def written(label):
  """Draws a label, maybe of several lines, on a ground with a margin."""
  # Pillow's own font: ASCII alone, and its space is too narrow to be seen.
  label = label.replace(' ', '  ')
  margin = FONT_SIZE // 2
  font = ImageFont.load_default(size=FONT_SIZE)
  measure = ImageDraw.Draw(Image.new('RGB', (1, 1)))
  box = measure.multiline_textbbox((0, 0), label, font=font)
  width, height = math.ceil(box[2]), math.ceil(box[3])
  image = Image.fromarray(_ground(height, width + 2 * margin))
  ImageDraw.Draw(image).multiline_text((margin, 0), label, INK, font=font)
  return np.asarray(image)


def _atom_block(atoms, width):
  """Sets atoms tightly in lines of equal length, about `width` pixels wide."""
  cells = [as_rgb(atom) for atom in atoms]
  cells = [_shrink(cell, min(cell.shape[0], ATOM_CELL)) for cell in cells]
  scale = math.ceil(ATOM_CELL / cells[0].shape[0])
  cells = [_enlarge(cell, scale) for cell in cells]
  pad = 1
  fitting = max(8, (width + pad) // (cells[0].shape[1] + pad))
  lines = math.ceil(len(cells) / fitting)
  line = math.ceil(len(cells) / lines)
  strips = [
    _strip(cells[i : i + line], pad) for i in range(0, len(cells), line)
  ]
  # No frame: the block's left edge is that of the images above.
  return _stack(strips, None, pad)[pad:-pad, pad:-pad]
