"""Operations on blocks of sites: the index of the maximum, a product."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

# Numbers that a block makes: what stays near the cores of a CPU, and what is a
# GiB on an accelerator.
_ENTRIES_ON_CPU = 2**19
_ENTRIES_ON_ACCELERATOR = 2**28
# The longest reduction over pairs that XLA:CPU still turns into vector code.
_PAIRS = 16


def largest(scores: Array) -> Array:
  """Finds the largest entry of each row; the lowest index wins a tie.

  Args:
    scores: float32 [N, K].

  Returns:
    int32 [N], in [0, K); for a row with NaN it is any of these.
  """
  if jax.default_backend() != 'cpu':
    return jnp.argmax(scores, axis=1).astype(jnp.int32)
  # XLA:CPU runs argmax as a scalar loop and max as vector code: so find the
  # best group of columns by max, and the column inside that group after it.
  groups = _in_groups(scores)
  group = _first_of_largest(jnp.max(groups, axis=2))
  return _best_inside(groups, group)


def largest_two(scores: Array) -> tuple[Array, Array]:
  """Finds the best columns of the two best groups of columns of each row.

  The groups are those of `largest`: the first is its result, the second is the
  best of another group, not always the second largest entry of all.

  Args:
    scores: float32 [N, K], none negative.

  Returns:
    int32 [N] and [N]; twice the same where K makes one group alone.
  """
  groups = _in_groups(scores)
  maxima = jnp.max(groups, axis=2)
  first = _first_of_largest(maxima)
  others = jnp.arange(maxima.shape[1])[None] != first[:, None]
  second = _first_of_largest(jnp.where(others, maxima, -1.0))
  return _best_inside(groups, first), _best_inside(groups, second)


def take(x: Array, indices: Array) -> Array:
  """Returns x[indices] for indices that are known to be within bounds."""
  return x.at[indices].get(mode='promise_in_bounds')


def _in_groups(scores: Array) -> Array:
  n, k = scores.shape
  count = next(c for c in (16, 8, 4, 2, 1) if k % c == 0)
  return scores.reshape(n, count, k // count)


def _best_inside(groups: Array, group: Array) -> Array:
  n, count, width = groups.shape
  rows = groups.reshape(n * count, width)
  inside = take(rows, jnp.arange(n, dtype=jnp.int32) * count + group)
  return group * width + _first_of_largest(inside)


def _first_of_largest(scores: Array) -> Array:
  """Finds argmax of [N, K] by rounds of short reductions of (score, index)."""
  # An index has no gradient, and a reduction of pairs no rule to say so.
  scores = lax.stop_gradient(scores)
  last = scores.shape[1] - 1
  indices = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
  nothing = jnp.float32(-jnp.inf), jnp.int32(2**31 - 1)

  def better(x, y):
    first = (x[0] > y[0]) | ((x[0] == y[0]) & (x[1] < y[1]))
    return jnp.where(first, x[0], y[0]), jnp.where(first, x[1], y[1])

  while (k := scores.shape[1]) > _PAIRS:
    short = -(-k // _PAIRS) * _PAIRS - k
    scores, indices = lax.reduce(
      tuple(
        jnp.pad(x, ((0, 0), (0, short)), constant_values=fill).reshape(
          -1, (k + short) // _PAIRS, _PAIRS
        )
        for x, fill in zip((scores, indices), nothing, strict=True)
      ),
      nothing,
      better,
      (2,),
    )
  index = lax.reduce((scores, indices), nothing, better, (1,))[1]
  # Where all scores are NaN none was better than nothing.
  return jnp.minimum(index, last)


def in_blocks(function: Callable[[Any], Any], sites: Any, k: int) -> Any:
  """Applies a function to sites block by block where that is better.

  On a CPU each block has the same shape whatever N is, so that the arithmetic
  of a signal, to the last bit, does not depend on the number of the others.
  An accelerator takes all sites at once, unless N k exceeds 2^28.

  Args:
    function: maps a pytree of arrays [block, ...] to another.
    sites: a pytree of arrays [N, ...], as the function takes.
    k: numbers that the function computes for a site, such as K scores.

  Returns:
    The results of `function` for all sites: a pytree of arrays [N, ...].
  """
  n = jax.tree.leaves(sites)[0].shape[0]
  block = _block(n, k, jax.default_backend())
  if block is None:
    return function(sites)
  return map_blocks(function, sites, block)


@jax.custom_vjp
@jax.jit
def linear(sites: Array, kernel: Array) -> Array:
  """Returns sites @ kernel; each row depends, to the last bit, on itself alone.

  Args:
    sites: float32 [N, D]; kernel: float32 [D, d].

  Returns:
    float32 [N, d].
  """
  block = _block(len(sites), max(kernel.shape), jax.default_backend())
  if block is None:
    return matmul(sites, kernel)
  # One product of stacks: as fast as that of all sites, and each part of it has
  # the shape of a block.
  blocks = split_blocks(sites, block)
  kernels = jnp.broadcast_to(kernel, (len(blocks), *kernel.shape))
  return _join(matmul(blocks, kernels), len(sites))


def matmul(a: Array, b: Array) -> Array:
  """Multiplies in full float32 on every device.

  The default precision of some devices is lower, and codes sites near a
  threshold differently.
  """
  return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _linear_forward(sites, kernel):
  return linear(sites, kernel), (sites, kernel)


def _linear_backward(residuals, cotangent):
  # A gradient is of the whole batch, and needs no blocks.
  sites, kernel = residuals
  return matmul(cotangent, kernel.T), matmul(cotangent.T, sites).T


linear.defvjp(_linear_forward, _linear_backward)


def _block(n: int, k: int, backend: str) -> int | None:
  """Returns how many sites are to be taken at once; None for all of them."""
  if backend == 'cpu':
    return max(64, min(2048, _ENTRIES_ON_CPU // k))
  count = -(-n * k // _ENTRIES_ON_ACCELERATOR)
  return -(-n // count) if count > 1 else None


def map_blocks(function: Callable[[Any], Any], sites: Any, block: int) -> Any:
  """Applies a function of sites to `block` of them at a time; see `in_blocks`.

  Zeros pad the last block.
  """
  n = jax.tree.leaves(sites)[0].shape[0]
  blocks = lax.map(function, split_blocks(sites, block))
  return jax.tree.map(lambda x: _join(x, n), blocks)


def split_blocks(sites: Any, block: int) -> Any:
  """Arranges arrays [N, ...] as [N / block, block, ...]; zeros pad the last."""

  def split(x: Array) -> Array:
    count = -(-len(x) // block)
    padding = ((0, count * block - len(x)), *[(0, 0)] * (x.ndim - 1))
    x = jnp.pad(x, padding)
    if _alone():
      return x.reshape(count, block, *x.shape[1:])
    # The rows of a block lie `count` apart: where a mesh splits N, each device
    # then holds its fraction of every block.
    return x.reshape(block, count, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(split, sites)


def _join(x: Array, n: int) -> Array:
  """Brings blocks [count, block, ...] back to [n, ...]."""
  x = x if _alone() else x.swapaxes(0, 1)
  return x.reshape(-1, *x.shape[2:])[:n]


def _alone() -> bool:
  """Whether no mesh can split N: then neighbours are a block, uncopied."""
  return jax.device_count() == 1
