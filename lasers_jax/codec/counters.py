"""Coders that write nothing: they count what comes, or what it costs."""

import math

import numpy as np

from lasers_jax.codec import context, scales
from lasers_jax.codec.coder import Coder, Weighing
from lasers_jax.codec.context import Kind, Network
from lasers_jax.codec.scales import Scales
from lasers_jax.codec.tables import EVEN, Tables, weigh


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


class Cheapest(Weighing):
  """Goes through what costs least, for a bound: `bits`."""

  def __init__(self, tables: Tables):
    super().__init__(tables)
    self.bits = 0.0

  def planes(self, name, codes, sites, sizes):
    if self._fitted(name, Network) is None:
      return super().planes(name, codes, sites, sizes)
    for size in sizes:
      self._by_network(math.prod(sites), size, 1)
    return np.zeros((*sites, len(sizes)), np.int64)

  def numbers(self, name, codes, sites, limit, count):
    if self._fitted(name, Scales) is None:
      return super().numbers(name, codes, sites, limit, count)
    n = math.prod(sites) * count
    self.table(f'{name}@rungs', None, n, 4 * limit + 1)
    return np.zeros((*sites, count), np.int64)

  def table(self, name, values, n, size, rows=None, row_count=1):
    weights = self._tables[name]
    self.bits -= n * np.log2(np.max(weights.max(axis=1) / weights.sum(axis=1)))
    return np.zeros(n, np.int64)  # of counts the one whose sets cost nothing

  def sets(self, name, codes, counts, size, most):
    count = int(counts.flat[0])  # as of all others
    if count and self._fitted(name, Network) is None:
      self._by_table(counts.size, self._tables[name][0], count)
    elif count:
      self._by_network(counts.size, size, count)
    members = np.where(np.arange(most) < count, 0, size)
    return np.broadcast_to(members, (*counts.shape, most))

  def _by_network(self, n, size, count):
    """The best set but one, at least, has what all symbols have alike."""
    self.bits += n * math.log2(1 + EVEN * (1 - count / size))

  def _by_table(self, n, weights, count):
    weights = sorted(map(int, weights))
    of_all = [1] + [0] * count
    for weight in weights:
      for j in range(count, 0, -1):
        of_all[j] += weight * of_all[j - 1]
    best = math.prod(weights[-count:])
    self.bits += n * (math.log2(of_all[count]) - math.log2(best))

  def _integers(self, values, n, weights):
    self.bits -= n * math.log2(weights.max() / weights.sum())
    return np.full(n, weights.argmax())
