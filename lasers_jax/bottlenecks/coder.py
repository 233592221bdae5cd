"""The contract of coders, which write, read or count the codes of images.

The `transfer` of a bottleneck defines the order of its codes in a file, and
their tables; a coder counts, writes or reads them (see `lasers_jax.codec`), or
turns them into what priors model (see `lasers_jax.priors.maps.events`).
The arguments `codes` and `values` are arrays for a counter or a writer, and
None for a reader; all methods return the integers, so that a reader goes the
same way as the writer.
"""

import abc
from collections.abc import Sequence
from typing import Protocol

import numpy as np

Sites = tuple[int, int]  # H and W of a latent


class Coder(Protocol):
  """Codes integers one after the other."""

  @abc.abstractmethod
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

  @abc.abstractmethod
  def planes(
    self,
    name: str,
    codes: np.ndarray | None,
    sites: Sites,
    sizes: Sequence[int],
  ) -> np.ndarray:
    """Codes a map of integers, those of plane i in [0, sizes[i]).

    Args:
      codes: int [h, w, planes]; they are returned as int64.
      sites: h and w.
    """

  @abc.abstractmethod
  def numbers(
    self,
    name: str,
    codes: np.ndarray | None,
    sites: Sites,
    limit: int,
    count: int,
  ) -> np.ndarray:
    """Codes a map of integers in [-limit, limit], `count` at a site.

    Args:
      codes: int [h, w, count]; they are returned as int64.
      sites: h and w.
    """

  @abc.abstractmethod
  def sets(
    self,
    name: str,
    codes: np.ndarray | None,
    sites: Sites,
    size: int,
    count: int,
  ) -> np.ndarray:
    """Codes a map of sets of `count` integers in [0, size), each ascending.

    The probability of a set is proportional to the product of the weights of
    its members: so no bits are spent on an order.

    Args:
      codes: int [h, w, count]; they are returned as int64.
      sites: h and w.
    """

  @abc.abstractmethod
  def subset(self, values: np.ndarray | None, m: int, n: int) -> np.ndarray:
    """Codes a choice of m of n, all alike probable: int64 [m], ascending."""

  def channels(
    self,
    name: str,
    codes: np.ndarray | None,
    sites: Sites,
    size: int,
    count: int,
  ) -> np.ndarray:
    """Codes planes of as many values, each those of a channel in their order.

    No channel comes before another by its meaning.
    """
    return self.planes(name, codes, sites, [size] * count)

  def distinct(
    self,
    name: str,
    codes: np.ndarray | None,
    sites: Sites,
    sizes: Sequence[int],
  ) -> np.ndarray:
    """Codes planes as `planes` does; the values of a site differ."""
    return self.planes(name, codes, sites, sizes)

  def pairs(
    self,
    name: str,
    codes: Sequence[np.ndarray] | None,
    sites: Sites,
    shape: tuple[int, int, int],
  ) -> tuple[np.ndarray, np.ndarray]:
    """Codes a map of sets of atoms, then the level of each, given the atom.

    Args:
      codes: atoms and levels, int [h, w, S] each; they are returned as int32.
      sites: h and w.
      shape: S, K, and the number of levels.
    """
    s, k, levels = shape
    atoms, stored = (None, None) if codes is None else codes
    atoms = self.sets(f'{name}atoms', atoms, sites, k, s)
    given = None if stored is None else stored.ravel()
    found = self.table(
      f'{name}levels', given, atoms.size, levels, atoms.ravel(), k
    )
    return atoms.astype(np.int32), found.reshape(atoms.shape).astype(np.int32)


def transfer_planes(
  coder: Coder,
  name: str,
  codes: np.ndarray | None,
  sites: Sites,
  sizes: Sequence[int],
) -> np.ndarray:
  """Codes a map of integers, see `Coder.planes`: int32 [h, w, planes]."""
  return coder.planes(name, codes, sites, sizes).astype(np.int32)


def transfer_plane(
  coder: Coder, name: str, codes: np.ndarray | None, sites: Sites, size: int
) -> np.ndarray:
  """Codes a map of one integer in [0, size) a site: int32 [h, w]."""
  planes = None if codes is None else codes[..., None]
  return transfer_planes(coder, name, planes, sites, [size])[..., 0]
