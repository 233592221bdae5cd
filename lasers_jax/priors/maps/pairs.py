"""Members of sets, pairs of an atom and a level, in one fixed order."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lasers_jax.priors.maps.layout import Sets

MOST_PAIRS = 2**14  # that are one event each; beyond, levels are apart
ORDERS = 'energy', 'atoms', 'random'


class Pairs(NamedTuple):
  """Turns sets of pairs into events, by the rank of each pair, and back.

  An event is the rank of a pair. Where levels are apart, it is that of an atom,
  and the level is the next event.

  Attributes:
    k: atoms.
    levels: their number.
    order: int32 [V], the pair (atom · levels + level) of each rank; the atom
      where levels are apart.
    ranks: int32 [V], the rank of each pair or atom.
  """

  k: int
  levels: int
  order: np.ndarray
  ranks: np.ndarray

  @property
  def apart(self) -> bool:
    return len(self.order) < self.k * self.levels

  @property
  def sizes(self) -> list[int]:
    """Returns the number of values of each plane of a member."""
    return [len(self.order), *([self.levels] if self.apart else [])]

  def sets(self, first: int, s: int) -> Sets:
    """Returns what a layout says of planes from `first` on, of S members."""
    width = len(self.sizes)
    planes = tuple(range(first, first + s * width))
    atoms, levels = np.divmod(self.order, 1 if self.apart else self.levels)
    over = planes[1::2] if self.apart else ()
    return Sets(planes[::width], atoms, levels, over)

  def events(self, atoms: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Returns the events of members [..., S]: [..., S or 2 S]."""
    pairs = atoms if self.apart else atoms * self.levels + levels
    ranks = self.ranks[pairs]
    order = np.argsort(ranks, axis=-1, kind='stable')
    ranks = np.take_along_axis(ranks, order, axis=-1)
    if not self.apart:
      return ranks
    levels = np.take_along_axis(levels, order, axis=-1)
    return np.stack([ranks, levels], axis=-1).reshape(*ranks.shape[:-1], -1)

  def codes(self, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the atoms, ascending, and their levels of `events`.

    Returns:
      int32 [..., S] each.
    """
    if self.apart:
      atoms, levels = self.order[events[..., ::2]], events[..., 1::2]
    else:
      atoms, levels = np.divmod(self.order[events], self.levels)
    order = np.argsort(atoms, axis=-1, kind='stable')
    atoms, levels = (
      np.take_along_axis(x, order, axis=-1).astype(np.int32)
      for x in (atoms, levels)
    )
    return atoms, levels


Orders = Callable[[str, int, int], Pairs]  # by name, K and number of levels


def find_orders(
  tables: Mapping[str, np.ndarray], order: str, seed: int
) -> Orders:
  """Returns what gives the pairs of each set; see `Events.of`."""

  @functools.cache
  def find(name: str, k: int, levels: int) -> Pairs:
    apart = k * levels > MOST_PAIRS
    count = k if apart else k * levels
    if order == 'random':
      found = np.random.RandomState(seed).permutation(count)
    elif order == 'energy' and name in tables:
      table = np.asarray(tables[name])
      # Its largest level stands for an atom: all have the same multiples.
      energies = table.max(axis=1) if apart else table.ravel()
      found = np.argsort(-energies, kind='stable')
    else:
      found = np.arange(count)
    ranks = np.zeros(count, np.int32)
    ranks[found] = np.arange(count)
    return Pairs(k, levels, found.astype(np.int32), ranks)

  return find
