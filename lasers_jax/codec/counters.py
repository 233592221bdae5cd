"""Coders that write nothing: they count what comes, or keep it."""

import numpy as np

from lasers_jax.codec import context, scales
from lasers_jax.codec.coder import Coder
from lasers_jax.codec.context import Kind
from lasers_jax.codec.tables import Tables, weigh


class Counter(Coder):
  """Counts integers, for tables to be made of."""

  def __init__(self):
    self.counts: Tables = {}

  def tables(self) -> Tables:
    return {name: weigh(counts) for name, counts in self.counts.items()}

  def sets(self, name, codes, counts, size, most):
    members = codes[codes < size]
    self._row(name, (1, size), 0, members, len(members))
    return codes

  def _row(self, name, shape, row, values, n):
    counts = self.counts.setdefault(name, np.zeros(shape, np.int64))
    counts[row] += np.bincount(values, minlength=shape[1])
    return values

  def _integers(self, values, n, weights):
    return values


class Gatherer(Coder):
  """Keeps maps, for networks to be trained on."""

  def __init__(self):
    self._maps: dict[tuple[str, Kind], list[np.ndarray]] = {}
    self._numbers: dict[tuple[str, int], list[np.ndarray]] = {}

  def networks(self) -> Tables:
    """Trains a network for each kind of map."""
    fitted = [
      *((name, context.fit(x, kind)) for (name, kind), x in self._maps.items()),
      *((name, scales.fit(x, n)) for (name, n), x in self._numbers.items()),
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

  def sets(self, name, codes, counts, size, most):
    self._maps.setdefault((name, Kind((size,), most)), []).append(codes)
    return codes

  def _row(self, name, shape, row, values, n):
    return values

  def _integers(self, values, n, weights):
    return values
