"""What each site of an image costs in its file."""

import math
from typing import Any

import numpy as np

from lasers_jax.bottlenecks import Bottleneck
from lasers_jax.bottlenecks.coder import Sites
from lasers_jax.codec.coder import FittedCoder
from lasers_jax.codec.context import AutoregressiveMap, Kind
from lasers_jax.codec.prices import prices
from lasers_jax.codec.scales import Scales
from lasers_jax.codec.tables import Tables, named


def site_bits(
  bottleneck: Bottleneck, tables: Tables, codes: Any, sites: Sites
) -> np.ndarray:
  """Returns the bits of the code of each site: float64 [H, W].

  They add up to the length of the file but for its header and its last word.
  What is no site's own, as which sites are kept, is shared among all.

  Args:
    codes: of one image, as `Bottleneck.transfer` takes them.
    sites: H and W of its map of codes.
  """
  meter = _Meter(tables, sites)
  bottleneck.transfer(meter, sites, codes)
  return meter.bits


class _Meter(FittedCoder):
  """Adds up what the codes of each site cost, and writes nothing."""

  def __init__(self, tables: Tables, sites: Sites):
    super().__init__(tables)
    self.bits = np.zeros(sites)
    self._kept = np.arange(self.bits.size)  # the sites that have codes
    self._each_costs: list[np.ndarray] = []

  def table(self, name, values, n, size, rows=None, row_count=1):
    shares = self._tables[name] / self._tables[name].sum(axis=1, keepdims=True)
    self._add(-np.log2(shares[0 if rows is None else rows, values]))
    return values

  def planes(self, name, codes, sites, sizes):
    found = super().planes(name, codes, sites, sizes)
    self._add_waves(name, Kind(tuple(sizes)), sites)
    return found

  def numbers(self, name, codes, sites, limit, count):
    if named(self._tables, name, Scales) is None:
      return super().numbers(name, codes, sites, limit, count)
    self._add(prices(self._tables, codes, limit, codes[None], name)[0])
    return codes

  def sets(self, name, codes, sites, size, count):
    found = super().sets(name, codes, sites, size, count)
    self._add_waves(name, Kind((size,), count), sites)
    return found

  def subset(self, values, m, n):
    self._add(np.full(n, math.log2(math.comb(n, m)) / n))
    self._kept = values
    return values

  def _members(self, each, codes, n):
    below = np.full(n, -1)
    for r, weights in enumerate(each):
      member, end = codes[:, r], len(weights) - (len(each) - 1 - r)
      sums = np.cumsum([0, *weights])
      self._add(np.log2((sums[end] - sums[below + 1]) / weights[member]))
      below = member
    return codes

  def _each(self, values, shares):
    self._each_costs.append(-np.log2(shares[np.arange(len(values)), values]))
    return values

  def _add_waves(self, name: str, kind: Kind, sites: Sites) -> None:
    """Adds what a network asked for, wave by wave and plane by plane."""
    network = self._network(name)
    if network is None:
      return
    costs, found = iter(self._each_costs), np.zeros(sites)
    for where in AutoregressiveMap(network, kind, sites).waves():
      for _ in range(kind.planes):
        found[where] += next(costs)
    self._each_costs.clear()
    self._add(found)

  def _add(self, costs: np.ndarray) -> None:
    """Adds costs, as many for each site that has codes."""
    kept = self._kept
    self.bits.ravel()[kept] += costs.reshape(len(kept), -1).sum(axis=1)

  def _row(self, name, shape, row, values, n):
    raise NotImplementedError  # `table` asks for none

  def _integers(self, values, n, weights):
    raise NotImplementedError  # nor do `subset` and `_members`
