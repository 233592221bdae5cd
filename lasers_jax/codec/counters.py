"""Coders that write nothing: they count or keep integers, or check tables."""

import numpy as np

from lasers_jax.codec import context, fit_scales, scales
from lasers_jax.codec.coder import FittedCoder, RowCoder
from lasers_jax.codec.context import Kind, Network
from lasers_jax.codec.scales import Scales
from lasers_jax.codec.tables import Tables, weigh

_OLDER = 'beside'  # a table of the first version of contexts of integers


class Counter(RowCoder):
  """Counts integers, to make tables."""

  def __init__(self):
    self.counts: Tables = {}

  def tables(self) -> Tables:
    return {name: weigh(counts) for name, counts in self.counts.items()}

  def sets(self, name, codes, sites, size, count):
    self._row(name, (1, size), 0, codes.ravel(), codes.size)
    return codes

  def _row(self, name, shape, row, values, n):
    counts = self.counts.setdefault(name, np.zeros(shape, np.int64))
    counts[row] += np.bincount(values, minlength=shape[1])
    return values

  def _integers(self, values, n, weights):
    return values


class MapCollector(RowCoder):
  """Keeps maps, to train networks."""

  def __init__(self):
    self._maps: dict[tuple[str, Kind], list[np.ndarray]] = {}
    self._numbers: dict[tuple[str, int], list[np.ndarray]] = {}

  def networks(self) -> Tables:
    """Trains a network for each kind of map."""
    fitted = [
      *((name, context.fit(x, kind)) for (name, kind), x in self._maps.items()),
      *((name, fit_scales.fit(x, n)) for (name, n), x in self._numbers.items()),
    ]
    return {
      f'{name}@{part}': x
      for name, network in fitted
      for part, x in network._asdict().items()
    }

  def numbers(self, name, codes, sites, limit, count):
    self._numbers.setdefault((name, limit), []).append(codes)
    return codes

  def planes(self, name, codes, sites, sizes):
    self._maps.setdefault((name, Kind(tuple(sizes))), []).append(codes)
    return codes

  def sets(self, name, codes, sites, size, count):
    self._maps.setdefault((name, Kind((size,), count)), []).append(codes)
    return codes

  def _row(self, name, shape, row, values, n):
    return values

  def _integers(self, values, n, weights):
    return values


class Checker(FittedCoder):
  """Reads zeros; raises ValueError if a table is missing or misshapen."""

  def table(self, name, values, n, size, rows=None, row_count=1):
    self._need(name, (row_count, size))
    return np.zeros(n, np.int64)

  def planes(self, name, codes, sites, sizes):
    kind = Kind(tuple(sizes))
    if not self._check(name, Network, context.shapes(kind)):
      return super().planes(name, codes, sites, sizes)
    return np.zeros((*sites, len(sizes)), np.int64)

  def numbers(self, name, codes, sites, limit, count):
    if f'{name}@{_OLDER}' in self._tables:
      raise ValueError(
        'the contexts of the codec are of an older version: remove its file '
        'codec-...npz beside the model, and encode again'
      )
    if not self._check(name, Scales, scales.shapes(count)):
      return super().numbers(name, codes, sites, limit, count)
    return np.zeros((*sites, count), np.int64)

  def sets(self, name, codes, sites, size, count):
    shapes = context.shapes(Kind((size,), count))
    if not self._check(name, Network, shapes):
      self._need(name, (1, size))
    return np.zeros((*sites, count), np.int64)

  def _check(self, name, kind, shapes) -> bool:
    """Whether there is something fitted; the shapes are those of its fields."""
    fields = [f'{name}@{x}' for x in kind._fields]
    if fields[-1] not in self._tables:
      return False
    for field, shape in zip(fields, shapes, strict=True):
      self._need(field, shape)
    return True

  def _need(self, name, shape) -> None:
    found = self._tables.get(name)
    if found is None or found.shape != shape:
      what = 'missing' if found is None else f'of the shape {found.shape}'
      raise ValueError(f'the table {name} is {what}, and {shape} is needed')

  def _row(self, name, shape, row, values, n):
    raise NotImplementedError  # `table` asks for none

  def _integers(self, values, n, weights):
    return np.zeros(n, np.int64)

  def _each(self, values, shares):
    raise NotImplementedError
