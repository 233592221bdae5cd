"""Probability mass function sampling.

A. Bouayed, A. Iaccovelli and D. Naccache, "Sampling from autoencoders' latent
space via quantization and probability mass function concepts", arXiv
2308.10704: cut every dimension into k bins between its extremes, weigh each
cell by its fraction of the latents, draw a cell, then a point in it.

Drawing a cell by its fraction and a point uniformly in it has the same law as
drawing a latent uniformly and a point uniformly in that latent's cell, which
needs no table of cells. In many dimensions nearly every cell holds one latent:
then the method draws noise about the latents that it was fitted on, of a width
set by k, and whether it shows anything new is to be measured.
"""

import collections
import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.coding.search import map_blocks, take
from lasers_jax.core.ranges import Range
from lasers_jax.errors import InputError
from lasers_jax.priors.vector.base import (
  Prior,
  State,
  check_latents,
  check_points,
  fold_rows,
  host_chunks,
)

VARIANTS = ('bins', 'around')
_MOST = 2**16  # bins; with more, float32 leaves a cell too few points
_BLOCK = 256  # points whose densities are counted at once


@dataclasses.dataclass(frozen=True)
class PMFS(Prior):
  """Draws by PMFS, in one of two variants.

  - 'bins': draws a latent, then a point of its cell. The state is the number
    of each latent's bin in every dimension, in a byte for k up to 256, and
    the edges of bins.
  - 'around': draws a latent, then a point of a box about it that is as wide as
    a bin. The state holds the latents.

  The highest latent of a dimension belongs to the last bin. A dimension that
  never changes stays at its value, and densities are over the others, where
  that one is met exactly, and 0 elsewhere.

  Fitting and drawing take O(n d); densities O((n + m) d), and O(n m d) for
  'around'.

  Attributes:
    k: bins in each dimension.
    variant: a name in VARIANTS.
  """

  k: Annotated[int, Range(1, _MOST)] = 10
  variant: str = 'bins'
  has_density: ClassVar[bool] = True

  def __post_init__(self):
    super().__post_init__()
    if self.variant not in VARIANTS:
      raise InputError(
        f'the variants of pmfs are {", ".join(VARIANTS)}, not {self.variant!r}'
      )

  def fit(self, latents, seed: int = 0) -> State:
    """Counts latents [n, d]; the seed changes nothing."""
    latents = check_latents(latents)
    low, high = latents.min(axis=0), latents.max(axis=0)
    ends = {'low': low, 'high': high}
    if self.variant == 'around':
      return {'latents': latents, **ends}
    ends['edges'] = _edges(low, high, self.k)
    chunks = (
      _cells(rows, low, high, self.k) for _, rows in host_chunks(latents)
    )
    return {'bins': np.concatenate(list(chunks)), **ends}

  def sample(self, state: State, key: Array, n: int) -> Array:
    which, inside = jax.random.split(key)
    u = jax.random.uniform(inside, (n, len(state['low'])), np.float32)
    row = jax.random.randint(which, (n,), 0, len(state[self._rows]))
    source = jnp.asarray(state[self._rows])[row]
    if self.variant == 'around':
      width = (state['high'] - state['low']) / self.k
      return source + (u - 0.5) * width[None]
    edges, source = jnp.asarray(state['edges']), source.astype(jnp.int32)
    dimension = jnp.arange(len(edges))[None]
    first, end = (take(edges, (dimension, source + i)) for i in range(2))
    point = first + u * (end - first)
    # Rounding may lead to the next cell; the first point is of this one.
    return jnp.where(point < end, point, first)

  def check(self, state: State) -> None:
    super().check(state)
    if np.any(state['low'] > state['high']):
      raise ValueError('low is above high')
    if self.variant == 'around':
      return
    if state['bins'].max() >= self.k:
      raise ValueError('bins beyond the last')
    if state['edges'].shape != (len(state['low']), self.k + 1):
      raise ValueError('edges of other bins')

  def log_prob(self, state: State, x) -> Array:
    x = check_points(x, len(state['low']))
    low, high = (np.asarray(state[end], np.float64) for end in ('low', 'high'))
    width = (high - low) / self.k
    volume = np.log(width[width > 0]).sum()
    if self.variant == 'around':
      half = jnp.asarray(width / 2, jnp.float32)
      count = _count_near(jnp.asarray(state['latents']), half, jnp.asarray(x))
      total = len(state['latents'])
    else:
      count, total = self._look_up(state, np.asarray(x))
    with np.errstate(divide='ignore'):  # where there is nothing
      log_fraction = np.log(np.asarray(count, np.float64) / total)
    return jnp.asarray(log_fraction - volume, jnp.float32)

  @property
  def _rows(self) -> str:
    return 'latents' if self.variant == 'around' else 'bins'

  def _look_up(self, state: State, x: np.ndarray) -> tuple[list[int], int]:
    """How many latents share the cell of each point, and their number."""
    bins, low, high = (np.asarray(state[x]) for x in ('bins', 'low', 'high'))
    table = _count(rows for _, rows in host_chunks(bins))
    found = []
    for _, rows in host_chunks(x):
      inside = ((low <= rows) & (rows <= high)).all(axis=1)
      keys = _as_keys(_cells(rows, low, high, self.k))
      found += [
        table.get(key, 0) if within else 0
        for key, within in zip(keys, inside, strict=True)
      ]
    return found, sum(table.values())


def _cells(
  rows: np.ndarray, low: np.ndarray, high: np.ndarray, k: int
) -> np.ndarray:
  """The bin of each number: the smallest type of whole numbers, [n, d]."""
  low = low.astype(np.float64)
  width = (high - low) / k
  at = (rows - low) / np.where(width > 0, width, 1)
  return np.clip(at, 0, k - 1).astype(np.min_scalar_type(k - 1))


def _edges(low: np.ndarray, high: np.ndarray, k: int) -> np.ndarray:
  """The first float32 of each bin and, last, what follows on the highest.

  [d, k + 1]. They are those of `_cells` exactly, also where a bin has few
  numbers of float32, or none.
  """
  edges = np.empty((len(low), k + 1), np.float32)
  numbers = np.arange(k + 1)
  for i, (bottom, top) in enumerate(zip(low, high, strict=True)):
    width = (float(top) - float(bottom)) / k
    row = (float(bottom) + width * numbers).astype(np.float32)
    for towards, to_move in ((-np.inf, np.less_equal), (np.inf, np.greater)):
      # The number below is of the bin, too; or this one is not.
      other = np.nextafter(row, np.float32(towards))
      seen = other if towards < 0 else row
      at = (seen - np.float64(bottom)) / (width or 1)
      row = np.where(to_move(numbers, np.floor(at)), other, row)
    edges[i] = row if width else bottom
    edges[i, 0], edges[i, -1] = bottom, np.nextafter(top, np.float32(np.inf))
  return edges


def _as_keys(bins: np.ndarray) -> list[bytes]:
  """The bytes of each row, to look cells up by."""
  width = bins.shape[1] * bins.itemsize
  return np.ascontiguousarray(bins).view(f'V{width}').ravel().tolist()


def _count(chunks) -> dict[bytes, int]:
  """How many rows each occupied cell has, in the order they first come."""
  table = collections.Counter()
  for bins in chunks:
    table.update(_as_keys(bins))
  return table


@jax.jit
def _count_near(latents: Array, half: Array, x: Array) -> Array:
  """Counts the latents in the box about each point: int32 [m].

  What a draw was rounded by does not take it out of the box.
  """
  eps = np.finfo(np.float32).eps

  def count(points: Array) -> Array:
    reach = (1 + 4 * eps) * half[None] + eps * jnp.abs(points)
    reach = jnp.where(half[None] > 0, reach, 0)

    def step(total: Array, rows: Array, counted: Array) -> Array:
      off = jnp.abs(points[:, None] - rows[None])
      near = jnp.all(off <= reach[:, None], axis=2)
      return total + jnp.sum(near & counted[None], axis=1, dtype=jnp.int32)

    return fold_rows(step, jnp.zeros(len(points), jnp.int32), latents)

  return map_blocks(count, x, min(_BLOCK, len(x)))
