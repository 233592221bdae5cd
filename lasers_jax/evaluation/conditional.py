"""Scores of draws for a class, and of the bits that a prior gives to images."""

import math
from typing import Any

import numpy as np

from lasers_jax.errors import InputError
from lasers_jax.metrics import statistics


def class_accuracy(
  found: np.ndarray, asked: np.ndarray, classes: int
) -> dict[str, Any]:
  """Returns how often the class found in an image is the one asked for.

  Of draws, the class asked for is that given to the prior; of real and of
  reconstructed images, it is their label. Draws that score higher than
  reconstructions are guided too strongly.

  Args:
    found: int [n], the classes that a classifier finds
      (`metrics.classifier.classes_of`).
    asked: int [n], from 0 to classes - 1.
    classes: their number.

  Returns:
    `accuracy` in [0, 1]; `asked`, `found` and `right`, [classes] each: how many
    images were asked to be of a class, were found to be, and both.

  Raises:
    InputError: an image without a class.
    ValueError: the two differ in length, or are empty.
  """
  found, asked = np.asarray(found), np.asarray(asked)
  if found.shape != asked.shape or not len(asked):
    raise ValueError(f'{found.shape} classes found, {asked.shape} asked for')
  if asked.min() < 0 or asked.max() >= classes:
    wrong = asked[(asked < 0) | (asked >= classes)][0]
    raise InputError(
      f'class accuracy needs classes from 0 to {classes - 1}, got {wrong}: '
      'label each image, or leave class accuracy out'
    )
  right = found == asked

  def count(some: np.ndarray) -> list[int]:
    return np.bincount(some, minlength=classes).tolist()

  return {
    'accuracy': float(right.mean()),
    'asked': count(asked),
    'found': count(found),
    'right': count(asked[right]),
  }


def bits_per_pixel(
  bits: np.ndarray, pixels: int, classes: int, exact: bool
) -> dict[str, Any]:
  """Returns what a prior pays for an image: bits per pixel, and by plane.

  The weights of the prior are not counted.

  Args:
    bits: float [n, H, W, P], -log2 p of each event given the class, or what
      bounds it (`MapPrior.bits`).
    pixels: of an image.
    classes: the number of classes; 0 without labels.
    exact: whether they are the bits of a code, rather than an upper bound.

  Returns:
    `given_class`: mean, 95 % interval and count over images, as
    `statistics.summarize` returns them. `with_class`: the mean, with
    log2(classes) bits an image for a class that is drawn uniformly. `exact`.
    `by_plane`: bits of a site, [P].
  """
  bits = np.asarray(bits, np.float64)
  own = statistics.summarize(bits.sum(axis=(1, 2, 3)) / pixels)
  return {
    'given_class': own,
    'with_class': own['mean'] + math.log2(max(1, classes)) / pixels,
    'exact': exact,
    'by_plane': bits.mean(axis=(0, 1, 2)).tolist(),
  }
