"""What the events of a code may be: planes, their sizes, what is legal."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jax import Array


class Sets(NamedTuple):
  """Planes that are the members of a set, each an atom with a level.

  The value of a member is its rank in one fixed order of all V = K·L pairs; the
  members of a set come in rising rank, so each set is one list of events.

  Attributes:
    planes: numbers of the planes, one after the other.
    counts: the plane that holds the number of members; None if all have them.
    atoms: int32 [V], of each rank.
    levels: int32 [V], of each rank.
  """

  planes: tuple[int, ...]
  counts: int | None
  atoms: np.ndarray
  levels: np.ndarray


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

  def legal(self, plane: int, before: Array, left: Array | None = None):
    """Says which values the next event of a site may have.

    A value is legal only if the site, and with `left` the image, can still be
    finished: no mass is lost in dead ends, and Σ p over all codes is 1.

    Args:
      plane: p, of the event.
      before: int32 [..., p], the events of the planes before it.
      left: int32 [..., 2], for plane 0 of a code with `kept`: sites still to be
        kept, and sites left, this one included.

    Returns:
      bool [..., V_p]; None where all are legal.
    """
    raise NotImplementedError
