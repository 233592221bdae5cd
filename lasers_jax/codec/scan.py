"""The order in which the sites of maps become known, plane by plane.

Sites are numbered through all maps, row by row. Those of smooth planes come in
waves, each after those to the left and above; those of others in three passes:
every second site of every second row, the middles between four of these, and
the rest; and those of quiet planes all at once.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PASSES = 3
_LEFT, _RIGHT, _ABOVE, _BELOW = (0, -1), (0, 1), (-1, 0), (1, 0)
_STRAIGHT = _LEFT, _RIGHT, _ABOVE, _BELOW
# Each beside the one that stands in for it beyond the edge of a map.
_DIAGONAL = (-1, -1), (1, 1), (-1, 1), (1, -1)
_WAVE = _LEFT, _ABOVE, (-1, -1), (-1, 1)


class Step(NamedTuple):
  """Holds sites that come at once, and the four known ones near each.

  Attributes:
    kind: below PASSES; 0 for a wave.
    sites: [m].
    near: [4, m]; the number of all sites where none is known; None where none
      is known to any.
  """

  kind: int
  sites: np.ndarray
  near: np.ndarray | None


class Scan(NamedTuple):
  """Holds the order of n sites.

  Attributes:
    beside: [4, n], sites to the left and right, above and below, or the site
      itself beyond the edge.
  """

  waves: tuple[Step, ...]
  passes: tuple[Step, ...]
  whole: tuple[Step]
  beside: np.ndarray

  @property
  def count(self) -> int:
    """Returns n."""
    return self.beside.shape[1]


@functools.lru_cache(maxsize=4)
def scan(sizes: tuple[tuple[int, int], ...]) -> Scan:
  """Orders the sites of maps of these heights and widths."""
  rows, columns = (
    np.concatenate([np.indices(size)[i].ravel() for size in sizes])
    for i in range(2)
  )
  counts = [h * w for h, w in sizes]
  heights, widths = (np.repeat(x, counts) for x in zip(*sizes, strict=True))
  places = rows, columns, heights, widths
  all_sites = np.arange(len(rows))
  straight, diagonal, wave = (
    _shifted(places, offsets) for offsets in (_STRAIGHT, _DIAGONAL, _WAVE)
  )
  beside = np.where(straight < len(rows), straight, all_sites)
  near = [_stand_in(x, len(rows)) for x in (diagonal, straight)]
  odd = rows % 2, columns % 2
  kinds = np.where(odd[0] == odd[1], odd[0], 2)
  passes = [
    Step(kind, where, near[kind - 1][:, where] if kind else None)
    for kind in range(PASSES)
    if len(where := np.flatnonzero(kinds == kind))
  ]
  wave = _stand_in(wave, len(rows))
  waves = [
    Step(0, where, wave[:, where]) for where in _groups(columns + 2 * rows)
  ]
  whole = (Step(0, all_sites, None),)
  return Scan(tuple(waves), tuple(passes), whole, beside)


def _shifted(places, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
  """Sites so far off all n: [offsets, n]; n beyond the edge."""
  rows, columns, heights, widths = places
  found = []
  for dy, dx in offsets:
    y, x = rows + dy, columns + dx
    inside = (y >= 0) & (y < heights) & (x >= 0) & (x < widths)
    there = np.arange(len(rows)) + dy * widths + dx
    found.append(np.where(inside, there, len(rows)))
  return np.stack(found)


def _stand_in(near: np.ndarray, nothing: int) -> np.ndarray:
  """Puts others of the four [4, n] where there is nothing."""
  for other in near[[1, 0, 3, 2]], near.min(axis=0)[None]:
    near = np.where(near < nothing, near, other)
  return near


def _groups(keys: np.ndarray) -> list[np.ndarray]:
  """Where each key is, the lowest first."""
  order = np.argsort(keys, kind='stable')
  starts = np.flatnonzero(np.diff(keys[order])) + 1
  return np.split(order, starts)
