"""Product PMF: histograms of blocks of principal directions."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.coding.search import matmul, take
from lasers_jax.errors import InputError
from lasers_jax.ranges import Count
from lasers_jax.sampling.base import (
  Sampler,
  State,
  check_latents,
  check_points,
  host_chunks,
  pick_cells,
)
from lasers_jax.sampling.gaussian import principal_axes

_MOST = 4096  # cells of a block
_AT_ONCE = 32  # directions whose coordinates are in memory
# The outer edges lie this share of the range further out, so that no rounding
# puts a latent beyond them.
_MARGIN = 1e-6


@dataclasses.dataclass(frozen=True)
class ProductPMF(Sampler):
  """Independent histograms of blocks of neighbouring principal directions.

  Latents are turned to their principal directions, which are uncorrelated, and
  these are taken `block` at a time. Each direction is cut into k bins at its
  quantiles, so that they are about equally full, and each block has a
  histogram of its k^block cells. A sample takes a cell of every block, and a
  point uniformly in it. Directions without variance come back as the mean,
  and densities are over the others, of a point's projection onto them.

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
    edges = np.zeros((r, self.k + 1), np.float32)
    counts = np.zeros((blocks, self._cells), np.int32)
    at_once = max(_AT_ONCE // self.block, 1)
    for first in range(0, blocks, at_once):
      some = slice(first * self.block, (first + at_once) * self.block)
      turned = _turned(latents, axes.mean, axes.directions[:, some])
      edges[some] = _edges(turned, self.k)
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
    }

  def sample(self, state: State, key: Array, n: int) -> Array:
    which, inside = jax.random.split(key)
    edges = jnp.asarray(state['edges'])
    r = len(edges)
    cells = pick_cells(which, jnp.asarray(state['counts']), n)
    bins = cells[:, :, None] // self._powers % self.k
    bins = bins.reshape(n, cells.shape[1] * self.block)[:, :r]
    low, high = _ends(edges, bins)
    turned = low + (high - low) * jax.random.uniform(inside, (n, r))
    return state['mean'][None] + matmul(turned, state['directions'].T)

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


def _edges(turned: np.ndarray, k: int) -> np.ndarray:
  """The quantiles of each column: [some, k + 1], rising; some may be equal."""
  edges = np.quantile(turned, np.linspace(0, 1, k + 1), axis=0).T
  margin = _MARGIN * (edges[:, -1] - edges[:, 0])
  edges[:, 0] -= margin
  edges[:, -1] += margin
  return edges


def _bins(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
  return np.searchsorted(edges[1:-1], column, side='right')


def _ends(edges: Array, bins: Array) -> tuple[Array, Array]:
  """Where each bin of [n, r] begins and ends."""
  direction = jnp.arange(len(edges))[None]
  return take(edges, (direction, bins)), take(edges, (direction, bins + 1))


@functools.partial(jax.jit, static_argnames=('sampler',))
def _log_density(sampler: ProductPMF, state: State, x: Array) -> Array:
  edges, counts = jnp.asarray(state['edges']), jnp.asarray(state['counts'])
  turned = matmul(x - state['mean'][None], state['directions'])
  find = functools.partial(jnp.searchsorted, side='right')
  bins = jax.vmap(find, in_axes=(0, 1), out_axes=1)(edges[:, 1:-1], turned)
  low, high = _ends(edges, bins)
  inside = jnp.all((low <= turned) & (turned <= high), axis=1)
  missing = -len(edges) % sampler.block
  bins = jnp.pad(bins, ((0, 0), (0, missing)))
  bins = bins.reshape(len(x), len(counts), sampler.block)
  cells = jnp.sum(bins * sampler._powers, axis=2)
  share = counts[jnp.arange(len(counts))[None], cells] / jnp.sum(counts[0])
  log_prob = jnp.sum(jnp.log(share), axis=1)
  log_prob -= jnp.sum(jnp.log(high - low), axis=1)
  return jnp.where(inside, log_prob, -jnp.inf)
