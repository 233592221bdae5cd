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
    ranks: int32 [V + 1], the rank of each pair or atom, and V for that of atom
      K, which stands for none.
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

  def sets(self, first: int, s: int, counts: int | None) -> Sets:
    """Returns what a layout says of planes from `first` on, of S members."""
    width = len(self.sizes)
    planes = tuple(range(first, first + s * width))
    atoms, levels = np.divmod(self.order, 1 if self.apart else self.levels)
    over = planes[1::2] if self.apart else ()
    return Sets(planes[::width], counts, atoms, levels, over)

  def events(self, atoms: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Returns the events of members [..., S]: [..., S or 2 S]."""
    pairs = atoms if self.apart else atoms * self.levels + levels
    ranks = self.ranks[pairs]
    order = np.argsort(ranks, axis=-1, kind='stable')
    ranks = np.take_along_axis(ranks, order, axis=-1)
    ranks = np.where(ranks < len(self.order), ranks, 0)
    if not self.apart:
      return ranks
    levels = np.take_along_axis(levels, order, axis=-1)
    return np.stack([ranks, levels], axis=-1).reshape(*ranks.shape[:-1], -1)

  def codes(
    self, events: np.ndarray, taken: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns atoms, ascending, and their levels: int32 [..., S].

    Args:
      events: of `events`.
      taken: bool [..., S], False for members beyond the count.
    """
    if self.apart:
      atoms, levels = self.order[events[..., ::2]], events[..., 1::2]
    else:
      atoms, levels = np.divmod(self.order[events], self.levels)
    atoms = np.where(taken, atoms, self.k).astype(np.int32)
    levels = np.where(taken, levels, 0).astype(np.int32)
    order = np.argsort(atoms, axis=-1, kind='stable')
    return (
      np.take_along_axis(atoms, order, axis=-1),
      np.take_along_axis(levels, order, axis=-1),
    )


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
    ranks = np.full(count + 1, count, np.int32)
    ranks[found] = np.arange(count)
    return Pairs(k, levels, found.astype(np.int32), ranks)

  return find
