"""Coders of integers: one counts, others write and read.

All have the methods of `Coder`, and `layout.transfer` leads any of them through
the codes of an image: the reader meets the integers as the writer left them,
since both go the same way. Probabilities are ratios of the integers of tables,
and what is done with them (constriction's range coder of 24 bits, R. Bamler,
arXiv 2201.01741) is additions, multiplications and divisions as IEEE 754 has
them: the same bytes on every machine.
"""

import abc
import functools
import itertools
import math
from collections.abc import Iterator

import constriction
import numpy as np

from lasers_jax.errors import InputError

_queue = constriction.stream.queue
_TOTAL = 2**22  # about the sum of a table's weights
_EVEN = 2**-10  # share of a table that all symbols have alike

Tables = dict[str, np.ndarray]  # by name: int64 [rows, size]


class Coder(abc.ABC):
  """Is led through the integers of an image.

  What is called `values` is there for a counter or a writer, and None for a
  reader; all return the values.
  """

  def table(
    self,
    name: str,
    values: np.ndarray | None,
    n: int,
    size: int,
    rows: np.ndarray | None = None,
    row_count: int = 1,
  ) -> np.ndarray:
    """Codes n integers in [0, size): int64 [n].

    Args:
      name: of a table [row_count, size] of weights.
      values: int [n].
      rows: int [n], by which row each is coded; None is the first for all.
    """
    rows = np.zeros(n, np.int64) if rows is None else rows
    found = np.zeros(n, np.int64)
    for row, which in _alike(rows):
      given = None if values is None else values[which]
      shape = row_count, size
      found[which] = self._row(name, shape, row, given, len(which))
    return found

  @abc.abstractmethod
  def sets(
    self, name: str, values: np.ndarray | None, n: int, size: int, count: int
  ) -> np.ndarray:
    """Codes n sets of integers in [0, size), ascending: int64 [n, count].

    A set's probability is as the product of its members' weights in a table
    [1, size]: so order costs nothing.
    """

  def subset(self, values: np.ndarray | None, m: int, n: int) -> np.ndarray:
    """Codes which m of n there are, all choices alike: int64 [m], ascending."""
    chosen = None if values is None else np.isin(np.arange(n), values)
    found = []
    for i in range(n):
      missing, left = m - len(found), n - i
      if missing in (0, left):
        found += range(i, i + missing)
        break
      here = None if chosen is None else chosen[i : i + 1].astype(np.int64)
      weights = np.array([left - missing, missing])
      if self._integers(here, 1, weights)[0]:
        found.append(i)
    return np.array(found, np.int64)

  @abc.abstractmethod
  def _row(self, name, shape, row, values, n) -> np.ndarray:
    """Codes n integers by a row of a table of this shape."""

  @abc.abstractmethod
  def _integers(self, values, n, weights) -> np.ndarray:
    """Codes n integers, whose probabilities are as the weights."""


class Counter(Coder):
  """Counts integers, for tables to be made of."""

  def __init__(self):
    self.counts: Tables = {}

  def tables(self) -> Tables:
    return {name: weigh(counts) for name, counts in self.counts.items()}

  def sets(self, name, values, n, size, count):
    self._row(name, (1, size), 0, values.ravel(), values.size)
    return values

  def _row(self, name, shape, row, values, n):
    counts = self.counts.setdefault(name, np.zeros(shape, np.int64))
    counts[row] += np.bincount(values, minlength=shape[1])
    return values

  def _integers(self, values, n, weights):
    return values


class Weighing(Coder):
  """A coder that goes by tables."""

  def __init__(self, tables: Tables):
    self._tables = tables

  def sets(self, name, values, n, size, count):
    """Codes the lowest members, then the next; those after the same together.

    The r-th is a with the weight of a times that of all sets of those that are
    still missing, from above a: the elementary symmetric polynomials.
    """
    found = np.zeros((n, count), np.int64)
    before = np.full(n, -1)
    ladder = steps(tuple(self._tables[name][0].tolist()), count)
    for r, weights in enumerate(ladder):
      for low, which in _alike(before):
        given = None if values is None else values[which, r] - low - 1
        above = weights[low + 1 : size - (count - 1 - r)]
        found[which, r] = low + 1 + self._integers(given, len(which), above)
      before = found[:, r]
    return found

  def _row(self, name, shape, row, values, n):
    return self._integers(values, n, self._tables[name][row])


class Writer(Weighing):
  """Writes integers: `payload` gives the bytes."""

  def __init__(self, tables: Tables):
    super().__init__(tables)
    self._encoder = _queue.RangeEncoder()

  def payload(self) -> bytes:
    return self._encoder.get_compressed().astype('<u4').tobytes()

  def _integers(self, values, n, weights):
    if len(weights) > 1 and n:
      self._encoder.encode(values.astype(np.int32), _model(weights))
    return values


class Reader(Weighing):
  """Reads the integers that a writer wrote.

  Raises InputError where no writer can have written what there is.
  """

  def __init__(self, tables: Tables, payload: bytes):
    super().__init__(tables)
    if len(payload) % 4:
      raise InputError('the file is damaged: its codes are cut short')
    words = np.frombuffer(payload, '<u4').astype(np.uint32)
    self._decoder = _queue.RangeDecoder(words)

  def end(self) -> None:
    """Raises InputError where more was written than has been read."""
    if not self._decoder.maybe_exhausted():
      raise InputError('the file is damaged: its codes go on past their end')

  def _integers(self, values, n, weights):
    if len(weights) == 1 or not n:
      return np.zeros(n, np.int64)
    try:
      return self._decoder.decode(_model(weights), n).astype(np.int64)
    except AssertionError as error:
      raise InputError('the file is damaged: its codes mean nothing') from error


class Cheapest(Weighing):
  """Goes through what costs least, for a bound: `bits`."""

  def __init__(self, tables: Tables):
    super().__init__(tables)
    self.bits = 0.0

  def sets(self, name, values, n, size, count):
    weights = sorted(map(int, self._tables[name][0]))
    of_all = [1] + [0] * count
    for weight in weights:
      for j in range(count, 0, -1):
        of_all[j] += weight * of_all[j - 1]
    best = math.prod(weights[-count:])
    self.bits += n * (math.log2(of_all[count]) - math.log2(best))
    return np.zeros((n, count), np.int64)

  def _integers(self, values, n, weights):
    self.bits -= n * math.log2(weights.max() / weights.sum())
    return np.full(n, weights.argmax())


def _alike(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  """Yields each key, the lowest first, and where it is, ascending."""
  order = np.argsort(keys, kind='stable')
  found, starts = np.unique(keys[order], return_index=True)
  for key, which in zip(found, np.split(order, starts[1:]), strict=True):
    yield int(key), which


@functools.lru_cache(maxsize=8)
def steps(weights: tuple[int, ...], count: int) -> tuple[np.ndarray, ...]:
  """The weights of the 1st, 2nd, ... member of a set, ascending.

  Exact integers, then 40 bits of them: no rounding differs elsewhere.

  Args:
    weights: positive, one for each that may be a member.
    count: members of a set, from 1 to size.

  Returns:
    `count` arrays int64, as long as `weights`.
  """
  above = [1] * len(weights)  # of j members, from above each
  ladder = []
  for _ in range(count):
    own = [w * e for w, e in zip(weights, above, strict=True)]
    excess = max(max(own).bit_length() - 40, 0)
    ladder.append(np.array([max(x >> excess, 1) for x in own], np.int64))
    sums = list(itertools.accumulate(reversed(own)))[::-1]
    above = [*sums[1:], 0]
  return tuple(reversed(ladder))


def _model(weights: np.ndarray):
  return constriction.stream.model.Categorical(
    weights / weights.sum(), perfect=False
  )


def weigh(counts: np.ndarray) -> np.ndarray:
  """Makes a table of counts [rows, size]: int64 weights, all positive.

  Rows that were seen little are near the mean of all, and no weight is above
  1 - 2^-10 of its row: so a symbol costs something, and a short file cannot
  stand for many.
  """
  size = counts.shape[1]
  total = counts.sum(axis=0)
  mean = (total + 0.5) / (total.sum() + 0.5 * size)
  seen = counts.sum(axis=1, keepdims=True)
  # As if each row had seen the mean as often as it has symbols, at most.
  prior = min(size, 64)
  shares = (counts + prior * mean[None]) / (seen + prior)
  shares = (1 - _EVEN) * shares + _EVEN / size
  return np.maximum(1, np.rint(_TOTAL * shares)).astype(np.int64)
