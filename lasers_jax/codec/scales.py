"""Predicts integers, and how far off that is, from those that are known.

For maps of planes of integers, such as the channels of a transform. One plane
comes after the other, in the order of `scan`. The mean of an integer is linear
in its four known neighbours, and in the first planes at the site and beside it:
the mean of a block says much of the slopes of those around. How far off
it will be is linear, with weights of at least zero, in how far off all earlier
planes were there and beside, as D. Minnen and S. Singh, ICIP 2020, take slices
of channels one by one, and in the neighbours. Both are fitted to training maps.
The expected error falls into one of a few bins, the mean's distance from the
nearest integer into another: for each pair a table has the errors' probability.

All arithmetic is of integers. Products of matrices are in float32, with sums
below 2^24: the results are the same on every machine, whatever the order.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lasers_jax.codec.scan import PASSES, Scan, Step

UNIT = 2**14  # of the weights of scales
SLOPE = 2**8  # of the weights of means
EXACT = 2**24  # integers that float32 holds
FARTHEST = 31  # that counts of how far off one was
LARGEST = 2**20  # weight, in units
STEEPEST = 2**9 - 1  # weight of a mean, in units
_HIGHEST = 127  # that counts of a value
SINGLE = 192  # planes that are causes each; of those after, sums of
GROUP = 32  # planes
LEADING = 48  # planes that say something of means
BLOCK = 16  # planes, a divisor of GROUP and SINGLE; most that are smooth
SMOOTH, USUAL, QUIET = 0, 1, 2
_AT_ONCE = 2**13  # sites
# Bins of scales are four to an octave, from 2^-12 to 2^7: those of the first
# bits of a float32.
_DROPPED = 21  # bits of a float32
_FIRST = int(np.float32(2**-12 * UNIT).view(np.int32)) >> _DROPPED
BINS = 4 * 19
# Of the distance of a mean from the nearest integer, in units.
_OFFSETS = np.searchsorted(
  [6, 16, 32, 64, 96], np.arange(SLOPE // 2 + 1), 'right'
).astype(np.int32)
FRACTIONS = 6
ROWS = BINS * FRACTIONS
COMMON = 4  # symbols: 0, 1, -1, and others
RARE = 30  # of the others; and an escape


class Scales(NamedTuple):
  """Holds integers [..], for planes in the order in which they come.

  Attributes:
    classes: [planes], SMOOTH for those that come first, together; QUIET for
      those that come last, a block at a time; USUAL. Here alone planes are in
      the order of the maps.
    offset: [planes], of means, as those to `signed` in 1 / SLOPE.
    own: [PASSES, 4, planes], of the four known neighbours.
    signed: [leading, 5, planes], of a leading plane, at the site and to the
      left and right, above and below.
    least: [PASSES, planes], of scales, as those to `sizes` in 1 / UNIT.
    near: [PASSES, planes], of the errors of the four known neighbours.
    spread: [planes], of smooth ones, of the differences between these
      neighbours.
    sizes: [causes, 3, planes], of the errors of an earlier plane at the site,
      on its left and right, above and below.
    common: [ROWS, COMMON], weights of the errors 0, 1, -1, and others.
    scale_bins: [ROWS, RARE + 1], weights of the others: 2, -2, 3, ...
  """

  classes: np.ndarray
  offset: np.ndarray
  own: np.ndarray
  signed: np.ndarray
  least: np.ndarray
  near: np.ndarray
  spread: np.ndarray
  sizes: np.ndarray
  common: np.ndarray
  scale_bins: np.ndarray


def shapes(planes: int) -> Scales:
  """Returns the shapes of `Scales`."""
  return Scales(
    classes=(planes,),
    offset=(planes,),
    own=(PASSES, 4, planes),
    signed=(min(planes, LEADING), 5, planes),
    least=(PASSES, planes),
    near=(PASSES, planes),
    spread=(planes,),
    sizes=(causes(planes), 3, planes),
    common=(ROWS, COMMON),
    scale_bins=(ROWS, RARE + 1),
  )


def causes(planes: int) -> int:
  """Returns how many causes so many planes are."""
  return min(planes, SINGLE) + max(planes - SINGLE, 0) // GROUP


def parts(classes: np.ndarray) -> list[tuple[slice, int]]:
  """Returns planes that come together, in order, and the class of each part."""
  smooth, last = (int(np.sum(classes <= x)) for x in (SMOOTH, USUAL))
  found = [(slice(0, smooth), SMOOTH)] if smooth else []
  found += [(slice(k, k + 1), USUAL) for k in range(smooth, last)]
  while last < len(classes):
    first, last = last, min(last - last % BLOCK + BLOCK, len(classes))
    found.append((slice(first, last), QUIET))
  return found


class Expected(NamedTuple):
  """Holds what is expected of the integers of p planes at m sites.

  Attributes:
    guess: [p, m].
    sign: 1 or -1, [p, m]: on which side of the guess the mean is.
    rows: of tables, [p, m].
  """

  guess: np.ndarray
  sign: np.ndarray
  rows: np.ndarray


class ScalePredictor:
  """Predicts the integers of all sites, which become known by planes."""

  def __init__(self, scales: Scales, limit: int, scan: Scan):
    """Begins with nothing."""
    self._limit, self._scan, self._planes = limit, scan, len(scales.offset)
    self.order = np.argsort(scales.classes, kind='stable')
    self._parts = parts(scales.classes)
    self._waves = int(np.sum(scales.classes == SMOOTH))
    n = scan.count
    self._known = np.zeros((self._planes, n + 1), np.int32)
    self._off = np.zeros((BLOCK, n + 1), np.float32)
    self._sum = np.zeros(n, np.float32)  # of the planes of a group
    self._means = _Sums(scales.signed, n, np.int8)
    self._sizes = _Sums(scales.sizes, n, np.uint8)
    self._own = scales.own.transpose(0, 2, 1)[..., None].astype(np.int32)
    self._offset = scales.offset[:, None].astype(np.int32)
    self._least = scales.least[..., None].astype(np.float32)
    self._spread = scales.spread[:, None].astype(np.float32)
    self._near = scales.near[..., None].astype(np.float32)
    # Planes whose means are always 0 are many.
    own, signed = scales.own, scales.signed
    self._leans = own.any((0, 1)) | signed.any((0, 1)) | (scales.offset != 0)

  @property
  def codes(self) -> np.ndarray:
    """Returns the integers so far known: int64 [n, planes], as in the maps."""
    found = np.empty((self._scan.count, self._planes), np.int64)
    found[:, self.order] = self._known[:, :-1].T
    return found

  def parts(self) -> Iterator[tuple[slice, tuple[Step, ...]]]:
    """Yields planes that come together, and the steps of their sites."""
    scan = self._scan
    steps = {SMOOTH: scan.waves, USUAL: scan.passes, QUIET: scan.whole}
    for planes, kind in self._parts:
      yield planes, steps[kind]

  def expect(self, planes: slice, step: Step) -> Expected:
    """Predicts the integers of a step."""
    scale = self._sizes.of(planes)[:, step.sites]
    scale += self._least[step.kind, planes]
    if step.near is not None:
      off = self._off[: len(scale), step.near].sum(axis=1)
      off *= self._near[step.kind, planes]
      scale += off
      near = self._known[planes, step.near]
      if planes.stop <= self._waves:
        scale += self._spread[planes] * spread(near)
    bins = (scale.view(np.int32) >> _DROPPED) - _FIRST
    rows = np.minimum(np.maximum(bins, 0), BINS - 1) * np.int32(FRACTIONS)
    if not self._leans[planes].any():
      nothing = np.zeros(rows.shape, np.int32)
      return Expected(nothing, nothing + 1, rows)
    mean = self._means.of(planes)[:, step.sites].astype(np.int32)
    mean += self._offset[planes]
    if step.near is not None:
      own = self._own[step.kind, planes] * near
      mean += own.sum(axis=1, dtype=np.int32)
    guess = mean + SLOPE // 2 >> SLOPE.bit_length() - 1
    guess = np.minimum(np.maximum(guess, -self._limit), self._limit)
    rest = mean - SLOPE * guess
    sign = np.where(rest < 0, np.int32(-1), np.int32(1))
    rows += _OFFSETS[np.minimum(abs(rest), SLOPE // 2)]
    return Expected(guess, sign, rows)

  def learn(self, planes: slice, step: Step, codes, expected) -> None:
    """Takes the integers of a step as known: [p, m]."""
    self._known[planes, step.sites] = codes
    off = np.minimum(abs(codes - expected.guess), FARTHEST)
    self._off[: len(off), step.sites] = off

  def finish(self, planes: slice) -> np.ndarray:
    """Goes on to the next planes: returns how far off these were, [p, n]."""
    for plane in range(planes.start, planes.stop):
      self._finish(plane, self._off[plane - planes.start, :-1])
    return self._off[: planes.stop - planes.start, :-1]

  def _finish(self, plane: int, off: np.ndarray) -> None:
    beside = self._scan.beside
    if plane < SINGLE:
      self._sizes.learn(plane, _sides(off, beside), plane)
    else:
      self._sum += off
      if (plane - SINGLE) % GROUP == GROUP - 1:
        seen = _sides(np.minimum(self._sum, FARTHEST), beside)
        self._sizes.learn(causes(plane + 1) - 1, seen, plane)
        self._sum[:] = 0
    if plane < LEADING:
      value = np.clip(self._known[plane, :-1], -_HIGHEST, _HIGHEST)
      self._means.learn(plane, [value, *value[beside]], plane)
    following = plane + 1
    if following % BLOCK == 0 and following < self._planes:
      self._means.start(following, min(following, LEADING))
      self._sizes.start(following, causes(following))


def _sides(off: np.ndarray, beside: np.ndarray) -> list[np.ndarray]:
  """How far off all sites are, and those on either side."""
  left, right, above, below = off[beside]
  return [off, left + right, above + below]


def spread(near: np.ndarray) -> np.ndarray:
  """Returns how far four neighbours [..., 4, m] are apart: float32 [..., m]."""
  apart = abs(near[..., ::2, :] - near[..., 1::2, :]).sum(axis=-2)
  return np.minimum(apart, _HIGHEST).astype(np.float32)


class _Sums:
  """What known maps say to a block of planes, as products of matrices."""

  def __init__(self, weights: np.ndarray, n: int, kind: type):
    self._weights = weights.astype(np.float32)  # [causes, k, planes]
    self._maps = np.zeros((*weights.shape[:2], n), kind)
    self._first = 0
    self._said = np.zeros((min(BLOCK, weights.shape[2]), n), np.float32)

  def of(self, planes: slice) -> np.ndarray:
    """What is said to planes of the block: [p, n]."""
    return self._said[planes.start - self._first : planes.stop - self._first]

  def learn(self, cause: int, maps, plane: int) -> None:
    """Takes the k maps of a cause as known, and tells the planes after."""
    self._maps[cause] = maps
    rest = slice(plane + 1, self._first + BLOCK)
    weights = self._weights[cause, :, rest].T
    if weights.any():
      said = self._said[plane + 1 - self._first :]
      said += weights @ self._maps[cause].astype(np.float32)

  def start(self, first: int, known: int) -> None:
    """Goes on to the block of planes that begins with the first."""
    self._first = first
    weights = self._weights[:known, :, first : first + BLOCK]
    weights = weights.reshape(-1, weights.shape[2]).T
    self._said = np.zeros((len(weights), self._maps.shape[2]), np.float32)
    if not weights.any():
      return
    maps = self._maps[:known].reshape(weights.shape[1], -1)
    for start in range(0, maps.shape[1], _AT_ONCE):
      some = slice(start, start + _AT_ONCE)
      self._said[:, some] = weights @ maps[:, some].astype(np.float32)
