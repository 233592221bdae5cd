"""Product PMF: histograms of blocks of principal directions."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.coding.search import matmul, take
from lasers_jax.core.ranges import Count
from lasers_jax.errors import InputError
from lasers_jax.priors.vector.base import (
  Prior,
  State,
  check_latents,
  check_points,
  host_chunks,
  pick_cells,
)
from lasers_jax.priors.vector.gaussian import principal_axes

_MOST = 4096  # cells of a block
_AT_ONCE = 32  # directions whose coordinates are in memory
# Of bins, in units of what turning a latent is rounded by.
_NARROWEST = 4


@dataclasses.dataclass(frozen=True)
class ProductPMF(Prior):
  """Draws from independent histograms of blocks of principal directions.

  Latents are rotated to their principal directions, which are uncorrelated, and
  these are taken `block` at a time. Each direction is cut into k bins at its
  quantiles, so that they are about equally full, and each block has a
  histogram of its k^block cells. A sample takes a cell of every block, and a
  point uniformly in it. Directions without variance come back as the mean,
  and densities are over the others, of a point's projection onto them. A point
  that rounding may have put on the other side of an edge has the larger of the
  two densities there; no bin is so narrow that this could be a third one.

  It keeps no latent, and does not give one back: a cell stands for some
  n / k^block latents, and the cells of a sample come from another one in every
  block, so that with d / block blocks the chance of all being of one latent is
  next to nothing. What it cannot show is dependence between blocks.

  Fitting takes O(n d log n) beside the principal directions, which are one
  product of O(n d²); drawing O(d² + d log cells) a row.

  Attributes:
    block: directions in a block; the last one may have fewer.
    k: bins of each direction; k^block is 4096 at most.
  """

  block: Count = 2
  k: Count = 32
  has_density: ClassVar[bool] = True

  def __post_init__(self):
    super().__post_init__()
    if self._cells > _MOST:
      raise InputError(
        f'product with k={self.k} and block={self.block} has {self._cells} '
        f'cells in a block, and {_MOST} is the most: lower k or block'
      )

  def fit(self, latents, seed: int = 0) -> State:
    """Counts latents [n, d]; the seed changes nothing."""
    latents = check_latents(latents)
    axes = principal_axes(latents)
    r = len(axes.deviations)
    blocks = -(-r // self.block)
    rounding = _rounding(latents, axes.mean)
    edges = np.zeros((r, self.k + 1), np.float32)
    counts = np.zeros((blocks, self._cells), np.int32)
    at_once = max(_AT_ONCE // self.block, 1)
    for first in range(0, blocks, at_once):
      some = slice(first * self.block, (first + at_once) * self.block)
      turned = _turned(latents, axes.mean, axes.directions[:, some])
      edges[some] = _edges(turned, self.k, rounding)
      bins = [
        _bins(column, row)
        for column, row in zip(turned.T, edges[some], strict=True)
      ]
      for i in range(0, len(bins), self.block):
        cells = self._pack(bins[i : i + self.block])
        counts[first + i // self.block] = np.bincount(
          cells, minlength=self._cells
        )
    return {
      'mean': axes.mean,
      'directions': axes.directions,
      'edges': edges,
      'counts': counts,
      'rounding': np.float32(rounding),
    }

  def sample(self, state: State, key: Array, n: int) -> Array:
    which, inside = jax.random.split(key)
    edges = jnp.asarray(state['edges'])
    r = len(edges)
    cells = pick_cells(which, jnp.asarray(state['counts']), n)
    bins = cells[:, :, None] // self._powers % self.k
    bins = bins.reshape(n, cells.shape[1] * self.block)[:, :r]
    low, high = _ends(edges, bins)
    u = jax.random.uniform(inside, (n, r), np.float32)
    turned = low + (high - low) * u
    return state['mean'][None] + matmul(turned, state['directions'].T)

  def check(self, state: State) -> None:
    super().check(state)
    blocks = -(-state['directions'].shape[1] // self.block)
    counts, edges = state['counts'], state['edges']
    if counts.shape != (blocks, self._cells) or edges.shape[1] != self.k + 1:
      raise ValueError('counts or edges of other cells')
    sums = counts.sum(axis=1)
    if not sums[0] or (sums != sums[0]).any() or state['rounding'].shape:
      raise ValueError('counts that are none')
    if (np.diff(edges) < 0).any() or (edges[:, 0] == edges[:, -1]).any():
      raise ValueError('edges that do not rise')

  def log_prob(self, state: State, x) -> Array:
    x = check_points(x, len(state['mean']))
    return _log_density(self, state, jnp.asarray(x))

  @property
  def _cells(self) -> int:
    return self.k**self.block

  @property
  def _powers(self) -> np.ndarray:
    """By which bins make the number of a cell: int32 [1, 1, block]."""
    return (self.k ** np.arange(self.block, dtype=np.int32))[None, None]

  def _pack(self, bins: list) -> np.ndarray | Array:
    """The number of the cell with these bins, of a block or of fewer."""
    return sum(x * self.k**i for i, x in enumerate(bins))


def _turned(
  latents: np.ndarray, mean: np.ndarray, directions: np.ndarray
) -> np.ndarray:
  """Coordinates along some directions: float32 [n, some], by columns."""
  turned = np.empty((len(latents), directions.shape[1]), np.float32, order='F')
  for start, rows in host_chunks(latents):
    turned[start : start + len(rows)] = (rows - mean) @ directions
  return turned


def _rounding(latents: np.ndarray, mean: np.ndarray) -> float:
  """By how much a coordinate of a latent may be off in float32.

  That of its numbers, which are some numbers off from those of a draw, and of
  a product that takes the mean off first.
  """
  mean = mean.astype(np.float64)  # squares of float32 would overflow
  return float(np.finfo(np.float32).eps) * max(
    float(np.abs(rows).max() + np.linalg.norm(rows - mean, axis=1).max())
    for _, rows in host_chunks(latents)
  )


def _edges(turned: np.ndarray, k: int, rounding: float) -> np.ndarray:
  """The quantiles of each column: [some, k + 1], rising.

  Those too near to the one before are put there, which leaves the bin between
  them empty; the outer ones are beyond all coordinates by what rounding does.
  """
  edges = np.quantile(turned, np.linspace(0, 1, k + 1), axis=0).T
  edges = edges.astype(np.float32)
  edges[:, 0] -= rounding
  edges[:, -1] += rounding
  for i in range(1, k):
    narrow = edges[:, i] - edges[:, i - 1] < _NARROWEST * rounding
    edges[:, i] = np.where(narrow, edges[:, i - 1], edges[:, i])
  return edges


def _bins(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
  return np.searchsorted(edges[1:-1], column, side='right')


def _ends(edges: Array, bins: Array) -> tuple[Array, Array]:
  """Where each bin of [n, r] begins and ends."""
  direction = jnp.arange(len(edges))[None]
  return take(edges, (direction, bins)), take(edges, (direction, bins + 1))


@functools.partial(jax.jit, static_argnames=('prior',))
def _log_density(prior: ProductPMF, state: State, x: Array) -> Array:
  edges, counts = jnp.asarray(state['edges']), jnp.asarray(state['counts'])
  off = state['rounding']
  turned = matmul(x - state['mean'][None], state['directions'])
  outside = (turned < edges[None, :, 0] - off) | (
    turned > edges[None, :, -1] + off
  )
  find = functools.partial(jnp.searchsorted, side='right')
  find = jax.vmap(find, in_axes=(0, 1), out_axes=1)
  sides = jnp.stack([find(edges[:, 1:-1], turned + d) for d in (-off, off)])
  low, high = _ends(edges, sides.reshape(-1, len(edges)))
  widths = (high - low).reshape(sides.shape)

  def in_blocks(x: Array, rest: int) -> Array:
    missing = ((0, 0), (0, 0), (0, -len(edges) % prior.block))
    x = jnp.pad(x, missing, constant_values=rest)
    return x.reshape(*x.shape[:2], len(counts), prior.block)

  sides, widths = in_blocks(sides, 0), in_blocks(jnp.log(widths), 0)

  def density(choice: Array) -> Array:
    """Returns the log density in each block, on a side of each edge."""
    bins, width = (
      jnp.where(choice[None, None], x[1], x[0]) for x in (sides, widths)
    )
    cells = jnp.sum(bins * prior._powers, axis=2)
    found = counts[jnp.arange(len(counts))[None], cells]
    log_fraction = jnp.log(jnp.float32(found) / jnp.float32(jnp.sum(counts[0])))
    # An empty cell may have no width.
    return jnp.where(found > 0, log_fraction - jnp.sum(width, axis=2), -jnp.inf)

  number, place = np.ogrid[: 2**prior.block, : prior.block]
  best = jax.lax.map(density, (number >> place) % 2 == 1).max(axis=0)
  return jnp.where(outside.any(axis=1), -jnp.inf, jnp.sum(best, axis=1))
