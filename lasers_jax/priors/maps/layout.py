"""What the events of a code may be: planes, sizes, and which are legal."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.bottlenecks.base import like_sites


class Sets(NamedTuple):
  """Planes that are the members of a set, each an atom with a level.

  The value of a member is its rank in one fixed order of all V = K·L pairs; the
  members of a set come in rising rank, so each set is one list of events. Where
  pairs are too many, V = K: the value is the rank of the atom, and the level
  has the next plane.

  Attributes:
    planes: numbers of the planes of ranks, ascending.
    atoms: int32 [V], of each rank.
    levels: int32 [V], of each rank; zeros where levels have planes.
    level_planes: numbers of the planes of levels, one a member, or none.
  """

  planes: tuple[int, ...]
  atoms: np.ndarray
  levels: np.ndarray
  level_planes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
  """Planes of the events of a code, of a map of H x W sites.

  Attributes:
    sites: H and W of the grid of codes.
    sizes: V_p, the values of each plane.
    sets: groups of planes that are sets.
    distinct: groups of planes whose values differ within a site.
    kept: where plane 0 says which sites are kept (value 1), their number in an
      image; the other planes of a site that is not kept are 0. Else None.
  """

  sites: tuple[int, int]
  sizes: tuple[int, ...]
  sets: tuple[Sets, ...] = ()
  distinct: tuple[tuple[int, ...], ...] = ()
  kept: int | None = None

  def legal(
    self, plane: int, before: Array, left: Array | None = None
  ) -> Array | None:
    """Says which values the next event of a site may have.

    A value is legal only if the site, and with `left` the image, can still be
    finished: no mass is lost in dead ends, and Σ p over all codes is 1.

    Args:
      plane: p, of the event.
      before: int32 [..., p], the events of the planes before it.
      left: int32 [..., 2], for plane 0 of a code with `kept`: sites still to be
        kept, and sites left, this one included; see `left`.

    Returns:
      bool [..., V_p]; None where all are legal.
    """
    if self.kept is not None and plane == 0:
      assert left is not None  # an image must end with all that it keeps
      return jnp.stack([left[..., 1] > left[..., 0], left[..., 0] > 0], -1)
    values = like_sites(jnp.arange(self.sizes[plane]), before)
    legal = None
    for group in self.sets:
      if plane in group.planes:
        legal = _continues(group, group.planes.index(plane), before)
    for group in self.distinct:
      if plane in group:
        for other in (x for x in group if x < plane):
          new = before[..., other, None] != values
          legal = new if legal is None else legal & new
    if self.kept is None:
      return legal
    has = before[..., :1] == 1  # whether the site has this event at all
    return jnp.where(has, True if legal is None else legal, values == 0)

  def left(self, events: Array) -> Array | None:
    """Counts what `legal` asks of a code with `kept`, in raster order.

    Args:
      events: int32 [..., H, W, P].

    Returns:
      int32 [..., H, W, 2], sites still to be kept and sites left, this one
      included; None for other codes.
    """
    if self.kept is None:
      return None
    n = self.sites[0] * self.sites[1]
    kept = events[..., 0].reshape(*events.shape[:-3], n)
    missing = self.kept - (jnp.cumsum(kept, axis=-1) - kept)
    rest = jnp.broadcast_to(like_sites(n - jnp.arange(n), kept), kept.shape)
    counts = jnp.stack([missing, rest], axis=-1).astype(jnp.int32)
    return counts.reshape(*events.shape[:-1], 2)


def _continues(group: Sets, member: int, before: Array) -> Array:
  """Says which ranks go on with a set that can be finished: bool [..., V].

  Rank r does so if it rises, its atom is new, and as many atoms as are missing
  after it have a rank above r, and are neither used nor its own.
  """
  top, room = _above(group.atoms)
  ranks = like_sites(jnp.arange(len(room)), before)
  room = like_sites(jnp.asarray(room), before)
  missing = len(group.planes) - member - 1
  legal = True
  for plane in group.planes[:member]:
    last = before[..., plane, None]
    used = jnp.asarray(group.atoms)[last]
    room -= jnp.asarray(top)[used] > ranks
    new = like_sites(jnp.asarray(group.atoms), before) != used
    legal &= new & (ranks > last)
  legal &= room >= missing
  return jnp.broadcast_to(legal, (*before.shape[:-1], len(group.atoms)))


def _above(atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Of an order of pairs, given the atom of each rank r: int32 [K] and [V].

  Returns:
    The highest rank of each atom, and how many atoms other than that of r have
    a rank above r.
  """
  ranks = np.arange(len(atoms), dtype=np.int32)
  top = np.zeros(atoms.max() + 1, np.int32)
  np.maximum.at(top, atoms, ranks)
  above = len(top) - np.searchsorted(np.sort(top), ranks, side='right')
  return top, (above - (top[atoms] > ranks)).astype(np.int32)
