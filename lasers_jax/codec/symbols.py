"""The symbols of errors: few for the common ones, more for the rare.

An error is counted towards the side of the guess on which the mean is, and
halved, for large scales, until the scale is below 4; what is dropped is
uniform. Then 0, 1 and -1 have symbols of their own, those up to 16 others after
the symbol for these, and the rest an escape, after which all are alike.
"""

from typing import NamedTuple

import numpy as np

from lasers_jax.codec.scales import (
  BINS,
  COMMON,
  FRACTIONS,
  RARE,
  Expected,
  Scales,
)

_OCTAVES = np.arange(BINS) // 4 - 12  # scales are from 2 to the power of these
_DROPPED = np.maximum(_OCTAVES - 1, 0).repeat(FRACTIONS)
_FIRST_DROPPED = np.flatnonzero(_DROPPED)[0]
_OTHER = COMMON - 1
_COMMON = np.array([0, 1, _OTHER, _OTHER, 2], np.int32)  # of 0, 1, 2, -2, -1
_EXACT = np.array([0, 1, -1, 0])


class Shares(NamedTuple):
  """Holds probabilities, float64.

  Attributes:
    common: [ROWS, COMMON].
    rare: [ROWS, RARE + 1].
  """

  common: np.ndarray
  rare: np.ndarray

  @classmethod
  def of(cls, net: Scales) -> 'Shares':
    """Returns those of fitted tables, whose rows add up to a power of two."""
    return cls(*(x / x[:1].sum() for x in (net.common, net.scale_bins)))


def escapes(limit: int) -> int:
  """Returns how many errors there may be after an escape, from -2 limit on."""
  return 4 * limit + 2


def dropped(expected: Expected) -> np.ndarray | None:
  """Returns the bits of each error that are dropped, [m]; None for no bits."""
  if expected.rows.max() < _FIRST_DROPPED:
    return None
  return _DROPPED[expected.rows]


def split(expected: Expected, codes) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns the errors of codes [m] without the bits dropped, and these."""
  bits = dropped(expected)
  errors = expected.sign * (codes - expected.guess)
  if bits is None:
    return errors, None
  errors += 1 << bits >> 1
  high = errors >> bits
  return high, errors - (high << bits)


def join(expected: Expected, high, low) -> np.ndarray:
  """Returns the codes that `split` splits."""
  bits = dropped(expected)
  if bits is not None:
    high = (high << bits) + low - (1 << bits >> 1)
  return expected.guess + expected.sign * high


def common(high: np.ndarray) -> np.ndarray:
  """Returns the first symbols of errors."""
  return _COMMON[np.minimum(np.maximum(high, -2), 2)]


def rare(high: np.ndarray) -> np.ndarray:
  """Returns the second symbols of errors beyond 1."""
  found = 2 * (abs(high) - 2) + (high < 0)
  return np.minimum(found, RARE)


def exact(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the errors of first symbols, and where they are others."""
  (others,) = (symbols == _OTHER).nonzero()
  return _EXACT[symbols], others


def large(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the errors of second symbols, and where they are escapes."""
  sizes = symbols // 2 + 2
  (escapes,) = (symbols == RARE).nonzero()
  return np.where(symbols % 2, -sizes, sizes), escapes


def of(expected: Expected, codes: np.ndarray):
  """Returns first symbols [m], where they are others, and the second there."""
  high, _ = split(expected, codes)
  first = common(high)
  _, others = exact(first)
  return first, others, rare(high[others])
