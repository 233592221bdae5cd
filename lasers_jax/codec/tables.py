"""Weights of symbols: probabilities as ratios of integers."""

import functools
import itertools
from decimal import Decimal
from typing import TypeVar

import numpy as np

_EVEN = 2**-10  # fraction of a row's weight that all symbols have alike
_TOTAL = 2**22  # about the sum of a row
FINE = 2**8  # parts of a bit that logits are rounded to
_TOP = 2**22  # weight of the most probable symbol, of logits
# 2^-x for a fraction x of a bit: from decimals, which all machines have alike.
_POWERS = np.array(
  [int(_TOP * Decimal(2) ** (Decimal(-i) / FINE)) for i in range(FINE)]
)
MOST = 2**32  # of any number in a table: sums of rows are exact in float64

# By name: weights int64 [rows, size]; and the arrays of networks, whose names
# have an @, see `context`.
Tables = dict[str, np.ndarray]
_Fitted = TypeVar('_Fitted', bound=tuple)


def named(tables: Tables, name: str, kind: type[_Fitted]) -> _Fitted | None:
  """Returns the arrays of a named tuple that are fitted to maps of a name.

  None where its last one is missing.
  """
  fields = [f'{name}@{x}' for x in kind._fields]
  if fields[-1] not in tables:
    return None
  return kind(*(tables[x] for x in fields))


def weigh(counts: np.ndarray) -> np.ndarray:
  """Makes a table of counts [rows, size]: int64 weights, all positive.

  Rows with few counts are near the mean of all.
  """
  size = counts.shape[1]
  total = counts.sum(axis=0)
  mean = (total + 0.5) / (total.sum() + 0.5 * size)
  seen = counts.sum(axis=1, keepdims=True)
  # As if each row had seen the mean as often as it has symbols, at most.
  prior = min(size, 64)
  fractions = (counts + prior * mean[None]) / (seen + prior)
  fractions = (1 - _EVEN) * fractions + _EVEN / size
  return np.maximum(1, np.rint(_TOTAL * fractions)).astype(np.int64)


def powers(logits: np.ndarray) -> np.ndarray:
  """Returns the powers of two of logits: int64 weights, down to 0.

  Args:
    logits: int64 [n, size], in units of 1 / FINE bit.
  """
  below = logits.max(axis=1, keepdims=True) - logits
  return _POWERS[below % FINE] >> np.minimum(below // FINE, 60)


def with_even_fraction(weights: np.ndarray) -> np.ndarray:
  """Mixes in a little of the uniform distribution: none is impossible."""
  total = weights.sum(axis=1, keepdims=True)
  return weights + total // round(weights.shape[1] / _EVEN) + 1


@functools.lru_cache(maxsize=8)
def steps(weights: tuple[int, ...], count: int) -> tuple[np.ndarray, ...]:
  """Returns the weights of the 1st, 2nd, ... member of a set, ascending.

  Exact integers, then 40 bits of them: no rounding differs elsewhere.

  Args:
    weights: positive, one for each that may be a member.
    count: members of a set, from 1 to size.

  Returns:
    `count` arrays int64, as long as `weights`.
  """
  above = [1] * len(weights)  # of j members, from above each
  found = []
  for _ in range(count):
    own = [w * e for w, e in zip(weights, above, strict=True)]
    excess = max(max(own).bit_length() - 40, 0)
    found.append(np.array([max(x >> excess, 1) for x in own], np.int64))
    sums = list(itertools.accumulate(reversed(own)))[::-1]
    above = [*sums[1:], 0]
  return tuple(reversed(found))


def ladder(weights: np.ndarray, count: int) -> list[np.ndarray]:
  """Weighs the 1st, 2nd, ... member of sets, ascending: float64 [n, size].

  As `steps`, for n rows of weights at once, and rounded: by sums one
  after the other, as IEEE 754 has them, and so alike on every machine.
  """
  fractions = weights / weights.sum(axis=1, keepdims=True)
  above, found = np.ones_like(fractions), []
  for _ in range(count):
    own = fractions * above
    found.append(own)
    sums = np.cumsum(own[:, ::-1], axis=1)[:, ::-1]
    above = np.concatenate([sums[:, 1:], np.zeros_like(sums[:, :1])], axis=1)
  return found[::-1]
