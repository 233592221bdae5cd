"""Coders that write integers, and read them.

The `transfer` of a bottleneck leads them, and those that count (`counters`),
through the codes of an image: see `bottlenecks.coder`. A reader finds the
integers in the order of the writer, since both go the same way.
Probabilities are ratios of the integers of tables. Coding (constriction's range
coder of 24 bits, R. Bamler, arXiv 2201.01741) is additions, multiplications and
divisions of IEEE 754: the bytes are the same on every machine.
"""

import abc
import functools
import math
from collections.abc import Iterator

import numpy as np

from lasers_jax.bottlenecks.coder import Coder
from lasers_jax.codec import symbols
from lasers_jax.codec.context import AutoregressiveMap, Kind, Network
from lasers_jax.codec.scales import Expected, ScalePredictor, Scales
from lasers_jax.codec.scan import scan
from lasers_jax.codec.tables import Tables, ladder, named, steps
from lasers_jax.errors import InputError

WORD = 4  # bytes that payloads are multiples of
BEYOND = 'the file is damaged: its codes go on past their end'
_MEANINGLESS = 'the file is damaged: its codes mean nothing'


class RowCoder(Coder, abc.ABC):
  """Codes maps by the rows of tables; a subclass codes sets."""

  def table(self, name, values, n, size, rows=None, row_count=1):
    rows = np.zeros(n, np.int64) if rows is None else rows
    found = np.zeros(n, np.int64)
    for row, which in _alike(rows):
      given = None if values is None else values[which]
      shape = row_count, size
      found[which] = self._row(name, shape, row, given, len(which))
    return found

  def planes(self, name, codes, sites, sizes):
    found = []
    for i, size in enumerate(sizes):
      given = None if codes is None else codes[..., i].ravel()
      plane = self.table(f'{name}{i}', given, math.prod(sites), size)
      found.append(plane.reshape(sites))
    return np.stack(found, axis=-1)

  def numbers(self, name, codes, sites, limit, count):
    codes = None if codes is None else codes + limit
    return self.planes(name, codes, sites, [2 * limit + 1] * count) - limit

  def subset(self, values, m, n):
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

  def one(self, value: int | None, weights: np.ndarray) -> int:
    """Codes one integer by weights int64 [size]: never one of weight 0."""
    (legal,) = np.nonzero(weights)
    given = None
    if value is not None:
      given = np.flatnonzero(legal == value)
    return int(legal[self._integers(given, 1, weights[legal])[0]])

  @abc.abstractmethod
  def _row(self, name, shape, row, values, n) -> np.ndarray:
    """Codes n integers by a row of a table of this shape."""

  @abc.abstractmethod
  def _integers(self, values, n, weights) -> np.ndarray:
    """Codes n integers, whose probabilities are as the weights."""


class FittedCoder(RowCoder):
  """Codes by tables, or by networks, one wave of sites after the other."""

  def __init__(self, tables: Tables):
    self._tables = tables

  def planes(self, name, codes, sites, sizes):
    network = self._network(name)
    if network is None:
      return super().planes(name, codes, sites, sizes)
    maps = AutoregressiveMap(network, Kind(tuple(sizes)), sites)
    for where in maps.waves():
      for i in range(len(sizes)):
        given = None if codes is None else codes[(*where, i)]
        shares = _probabilities(maps.weights(where, i))
        maps.learn(where, i, self._each(given, shares))
    return maps.codes

  def numbers(self, name, codes, sites, limit, count):
    """Codes plane by plane, each by its difference from the expected value."""
    found = named(self._tables, name, Scales)
    if found is None:
      return super().numbers(name, codes, sites, limit, count)
    order, tables = scan((tuple(sites),)), symbols.Shares.of(found)
    predictor = ScalePredictor(found, limit, order)
    maps = None
    if codes is not None:
      maps = codes.reshape(-1, count).T[predictor.order]
    for planes, each in predictor.parts():
      for step in each:
        given = None if maps is None else maps[planes, step.sites].ravel()
        expected = predictor.expect(planes, step)
        flat = Expected(*(x.ravel() for x in expected))
        values = self._by_errors(given, flat, tables, limit)
        if np.abs(values).max() > limit:
          raise InputError(_MEANINGLESS)
        values = values.reshape(expected.guess.shape)
        predictor.learn(planes, step, values, expected)
      predictor.finish(planes)
    return predictor.codes.reshape(*sites, count)

  def _by_errors(self, values, expected, tables: symbols.Shares, limit: int):
    """Codes integers [m] by their differences from what is expected."""
    first = second = high = low = None
    if values is not None:
      high, low = symbols.split(expected, values)
      first = symbols.common(high)
    first = self._each(first, tables.common[expected.rows])
    found, others = symbols.exact(first)
    if len(others):
      if high is not None:
        second = symbols.rare(high[others])
      rows = expected.rows[others]
      second = self._each(second, tables.rare[rows])
      found[others], escapes = symbols.large(second)
      if len(escapes):
        where = others[escapes]
        given = None if high is None else high[where] + 2 * limit
        even = np.ones(symbols.escapes(limit))
        found[where] = self._integers(given, len(where), even) - 2 * limit
    return symbols.join(expected, found, self._dropped(low, expected))

  def _dropped(self, values, expected: Expected) -> np.ndarray | None:
    """Codes what errors drop, all alike probable."""
    dropped = symbols.dropped(expected)
    if dropped is None:
      return None
    found = np.zeros(len(dropped), np.int64)
    for bits, which in _alike(dropped):
      if bits:
        given = None if values is None else values[which]
        found[which] = self._integers(given, len(which), np.ones(1 << bits))
    return found

  def sets(self, name, codes, sites, size, count):
    network = self._network(name)
    if network is not None:
      return self._sets_by_network(network, codes, sites, size, count)
    each = steps(tuple(self._tables[name][0].tolist()), count)
    given = None if codes is None else codes.reshape(-1, count)
    found = self._members(each, given, math.prod(sites))
    return found.reshape(*sites, count)

  def _members(self, each, codes, n):
    """Codes n sets: the r-th member by the r-th of `steps`.

    The lowest members come first, then the next; those after the same together.
    """
    found = np.zeros((n, len(each)), np.int64)
    before = np.full(n, -1)
    for r, weights in enumerate(each):
      missing = len(each) - 1 - r
      for low, which in _alike(before):
        given = None if codes is None else codes[which, r] - low - 1
        above = weights[low + 1 : len(weights) - missing]
        found[which, r] = low + 1 + self._integers(given, len(which), above)
      before = found[:, r]
    return found

  def _sets_by_network(self, network, codes, sites, size, count):
    maps = AutoregressiveMap(network, Kind((size,), count), sites)
    for wave in maps.waves():
      last = np.full(len(wave[0]), -1)
      for r, each in enumerate(ladder(maps.weights(wave, 0), count)):
        given = None if codes is None else codes[(*wave, r)]
        above = np.arange(size)[None] > last[:, None]
        weights = np.where(above, each, 0)
        found = self._each(given, _probabilities(weights))
        if not weights[np.arange(len(found)), found].all():
          raise InputError(_MEANINGLESS)
        maps.learn(wave, r, found)
        last = found
    return maps.codes

  def _network(self, name: str) -> Network | None:
    """What is fitted to maps of this name, where anything is."""
    return named(self._tables, name, Network)

  def _row(self, name, shape, row, values, n):
    return self._integers(values, n, self._tables[name][row])

  @abc.abstractmethod
  def _each(self, values, shares) -> np.ndarray:
    """Codes n integers, each by probabilities [n, size] of its own."""


class Writer(FittedCoder):
  """Writes integers: `payload` gives the bytes."""

  def __init__(self, tables: Tables):
    super().__init__(tables)
    self._encoder = range_coder().queue.RangeEncoder()

  def payload(self) -> bytes:
    """Returns words, the last not 0: a reader takes any more to be that."""
    words = np.trim_zeros(self._encoder.get_compressed(), 'b')
    return words.astype('<u4').tobytes()

  def _integers(self, values, n, weights):
    if len(weights) > 1 and n:
      self._encoder.encode(values.astype(np.int32), _model(weights))
    return values

  def _each(self, values, shares):
    if shares.shape[1] > 1:
      self._encoder.encode(values.astype(np.int32), _family(), shares)
    return values


class Reader(FittedCoder):
  """Reads the integers that a writer wrote.

  Raises InputError for bytes that no writer can have written.
  """

  def __init__(self, tables: Tables, payload: bytes):
    super().__init__(tables)
    if len(payload) % WORD:
      raise InputError('the file is damaged: its codes are cut short')
    words = np.frombuffer(payload, '<u4').astype(np.uint32)
    self._decoder = range_coder().queue.RangeDecoder(np.trim_zeros(words, 'b'))

  def end(self) -> None:
    """Raises InputError if more was written than has been read."""
    if not self._decoder.maybe_exhausted():
      raise InputError(BEYOND)

  def _integers(self, values, n, weights):
    if len(weights) == 1 or not n:
      return np.zeros(n, np.int64)
    return self._decode(_model(weights), n)

  def _each(self, values, shares):
    if shares.shape[1] == 1:
      return np.zeros(len(shares), np.int64)
    return self._decode(_family(), shares)

  def _decode(self, *model) -> np.ndarray:
    try:
      return self._decoder.decode(*model).astype(np.int64)
    except AssertionError as error:
      raise InputError(_MEANINGLESS) from error


def _alike(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  """Yields each key, the lowest first, and where it is, ascending."""
  order = np.argsort(keys, kind='stable')
  found, starts = np.unique(keys[order], return_index=True)
  ends = [*starts[1:], len(keys)]
  for key, start, end in zip(found, starts, ends, strict=False):
    yield int(key), order[start:end]


def range_coder():
  """Returns the module constriction.stream, which writes and reads words.

  Raises:
    InputError: it is not installed; some machines have no build of it.
  """
  try:
    import constriction
  except ImportError as error:
    raise InputError(
      'writing and reading files of codes needs the package constriction, and '
      f'it cannot be imported: {error}'
    ) from error
  return constriction.stream


@functools.cache
def _family():
  return range_coder().model.Categorical(perfect=False)


def _probabilities(weights: np.ndarray) -> np.ndarray:
  """Rows that add up to one, each sum taken one after the other."""
  return weights / np.cumsum(weights, axis=1)[:, -1:]


def _model(weights: np.ndarray):
  return range_coder().model.Categorical(weights / weights.sum(), perfect=False)
