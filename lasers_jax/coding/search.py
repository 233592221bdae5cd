"""Operations on blocks of sites: the index of the maximum, a product."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Numbers that a block makes: what stays near the cores of a CPU, and what is a
# GiB on an accelerator.
_ENTRIES_ON_CPU = 2**19
_ENTRIES_ON_ACCELERATOR = 2**28
# The longest reduction over pairs that XLA:CPU still turns into vector code.
_PAIRS = 16
# What any pair of a score and an index is better than.
_NOTHING = np.float32(-np.inf), np.int32(2**31 - 1)


def largest(scores: Array) -> Array:
  """Finds the largest entry of each row; the lowest index wins a tie.

  Args:
    scores: float32 [N, K].

  Returns:
    int32 [N], in [0, K); for a row with NaN it is any of these.
  """
  # An index has no gradient, and a reduction of pairs no rule to say so.
  scores = lax.stop_gradient(scores)
  return lax.platform_dependent(
    scores, cpu=_largest_by_groups, default=_largest_at_once
  )


def _largest_by_groups(scores: Array) -> Array:
  # XLA:CPU runs argmax as a scalar loop and max as vector code: so find the
  # best group of columns by max, and the column inside that group after it.
  groups = _in_groups(scores)
  group = _first_of_largest(jnp.max(groups, axis=2))
  return _best_inside(groups, group)


def _largest_at_once(scores: Array) -> Array:
  indices = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
  score, index = _reduce_to_largest(scores, indices, 1)
  return _index(score, index, scores.shape[1])


def largest_of_columns(
  function: Callable[[Any], Array], columns: Any, n: int
) -> Array:
  """Finds the largest of the scores that a function gives for columns.

  These are taken in blocks, where all scores have more than 2^28 entries. A
  block has all rows, and a mesh that splits these splits every block.

  Args:
    function: maps a pytree of arrays [block, ...] to float32 [N, block].
    columns: a pytree of arrays [K, ...].
    n: N.

  Returns:
    int32 [N], in [0, K), as `largest`.
  """
  k = jax.tree.leaves(columns)[0].shape[0]
  count = -(-n * k // _ENTRIES_ON_ACCELERATOR)
  if count <= 1:
    return largest(function(columns))
  blocks = split_columns(columns, -(-k // count))

  def better(best: tuple[Array, Array], some: tuple[Any, Array]):
    part, indices = some
    scores = jnp.where(indices < k, function(part), -jnp.inf)
    scores = lax.stop_gradient(scores)  # as in `largest`
    indices = jnp.broadcast_to(indices, scores.shape)
    score, index = _reduce_to_largest(scores, indices, 1)
    wins = score > best[0]
    found = jnp.where(wins, score, best[0]), jnp.where(wins, index, best[1])
    return found, None

  start = jnp.full(n, _NOTHING[0]), jnp.full(n, _NOTHING[1])
  score, index = lax.scan(better, start, blocks)[0]
  return _index(score, index, k)


def split_columns(columns: Any, block: int) -> tuple[Any, Array]:
  """Arranges arrays [K, ...] as [K / block, block, ...]; zeros fill the last.

  Returns:
    The arranged pytree, and the number of each entry, int32 [K / block, block];
    those from K on are none.
  """
  k = jax.tree.leaves(columns)[0].shape[0]
  count = -(-k // block)

  def arrange(x: Array) -> Array:
    padding = ((0, count * block - k), *[(0, 0)] * (x.ndim - 1))
    return jnp.pad(x, padding).reshape(count, block, *x.shape[1:])

  numbers = jnp.arange(count * block, dtype=jnp.int32)
  return jax.tree.map(arrange, columns), numbers.reshape(count, block)


def largest_two(scores: Array) -> tuple[Array, Array]:
  """Finds the best columns of the two best groups of columns of each row.

  The groups are those of `largest`: the first is its result, the second is the
  best of another group, not always the second largest entry of all.

  Args:
    scores: float32 [N, K], none negative.

  Returns:
    int32 [N] and [N]; twice the same where K makes one group alone.
  """
  scores = lax.stop_gradient(scores)
  return lax.platform_dependent(
    scores, cpu=_largest_two_by_groups, default=_largest_two_at_once
  )


def _largest_two_by_groups(scores: Array) -> tuple[Array, Array]:
  groups = _in_groups(scores)
  maxima = jnp.max(groups, axis=2)
  first = _first_of_largest(maxima)
  others = jnp.arange(maxima.shape[1])[None] != first[:, None]
  second = _first_of_largest(jnp.where(others, maxima, -1.0))
  return _best_inside(groups, first), _best_inside(groups, second)


def _largest_two_at_once(scores: Array) -> tuple[Array, Array]:
  first = _largest_at_once(scores)
  count = _groups(scores.shape[1])
  if count == 1:
    return first, first
  width = scores.shape[1] // count
  columns = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
  others = columns // width != (first // width)[:, None]
  second = _largest_at_once(jnp.where(others, scores, -1.0))
  return first, second


def take(x: Array, indices: Array) -> Array:
  """Returns x[indices] for indices that are known to be within bounds."""
  return x.at[indices].get(mode='promise_in_bounds')


def _in_groups(scores: Array) -> Array:
  n, k = scores.shape
  count = _groups(k)
  return scores.reshape(n, count, k // count)


def _groups(k: int) -> int:
  return next(count for count in (16, 8, 4, 2, 1) if k % count == 0)


def _best_inside(groups: Array, group: Array) -> Array:
  n, count, width = groups.shape
  rows = groups.reshape(n * count, width)
  inside = take(rows, jnp.arange(n, dtype=jnp.int32) * count + group)
  return group * width + _first_of_largest(inside)


def _first_of_largest(scores: Array) -> Array:
  """Finds argmax of [N, K] by rounds of short reductions of (score, index)."""
  width = scores.shape[1]
  indices = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
  while (k := scores.shape[1]) > _PAIRS:
    short = -(-k // _PAIRS) * _PAIRS - k
    scores, indices = _reduce_to_largest(
      *(
        jnp.pad(x, ((0, 0), (0, short)), constant_values=fill).reshape(
          -1, (k + short) // _PAIRS, _PAIRS
        )
        for x, fill in zip((scores, indices), _NOTHING, strict=True)
      ),
      axis=2,
    )
  score, index = _reduce_to_largest(scores, indices, 1)
  return _index(score, index, width)


def _index(score: Array, index: Array, width: int) -> Array:
  """Brings the index of rows that are all NaN, where none won, inside them.

  The condition changes no index. But the compiler of TPUs keeps in bfloat16 a
  maximum that nobody reads, behind a barrier too, and scores that differ by
  less than 0.4 % may then be taken for equal.
  """
  return jnp.where(score > -jnp.inf, index, jnp.minimum(index, width - 1))


def _reduce_to_largest(scores: Array, indices: Array, axis: int):
  """Returns the largest score along an axis, and the lowest index of it."""

  def better(x, y):
    first = (x[0] > y[0]) | ((x[0] == y[0]) & (x[1] < y[1]))
    return jnp.where(first, x[0], y[0]), jnp.where(first, x[1], y[1])

  return lax.reduce((scores, indices), _NOTHING, better, (axis,))


def in_blocks(function: Callable[[Any], Any], sites: Any, k: int) -> Any:
  """Applies a function to sites block by block where that is better.

  On a CPU each block has the same shape whatever N is, so that the arithmetic
  of a signal, to the last bit, does not depend on the number of the others.
  An accelerator takes all sites at once, unless N k exceeds 2^28. The form is
  that of the device which the program is compiled for.

  Args:
    function: maps a pytree of arrays [block, ...] to another.
    sites: a pytree of arrays [N, ...], as the function takes.
    k: numbers that the function computes for a site, such as K scores.

  Returns:
    The results of `function` for all sites: a pytree of arrays [N, ...].
  """
  return lax.platform_dependent(
    sites,
    cpu=lambda sites: in_small_blocks(function, sites, k),
    default=lambda sites: in_large_blocks(function, sites, k),
  )


def in_small_blocks(function: Callable[[Any], Any], sites: Any, k: int) -> Any:
  """Does what `in_blocks` does on a CPU."""
  return map_blocks(function, sites, _small_block(k))


def in_large_blocks(function: Callable[[Any], Any], sites: Any, k: int) -> Any:
  """Does what `in_blocks` does on an accelerator."""
  n = jax.tree.leaves(sites)[0].shape[0]
  count = -(-n * k // _ENTRIES_ON_ACCELERATOR)
  if count <= 1:
    return function(sites)
  return map_blocks(function, sites, -(-n // count))


def _small_block(k: int) -> int:
  return max(64, min(2048, _ENTRIES_ON_CPU // k))


@jax.custom_vjp
@jax.jit
def linear(sites: Array, kernel: Array) -> Array:
  """Returns sites @ kernel; each row depends, to the last bit, on itself alone.

  Args:
    sites: float32 [N, D]; kernel: float32 [D, d].

  Returns:
    float32 [N, d].
  """
  return lax.platform_dependent(
    sites, kernel, cpu=_linear_in_blocks, default=matmul
  )


def _linear_in_blocks(sites: Array, kernel: Array) -> Array:
  # One product of stacks: as fast as that of all sites, and each part of it has
  # the shape of a block.
  blocks = split_blocks(sites, _small_block(max(kernel.shape)))
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


def map_blocks(function: Callable[[Any], Any], sites: Any, block: int) -> Any:
  """Applies a function of sites to `block` of them at a time; see `in_blocks`.

  Zeros pad the last block.
  """
  n = jax.tree.leaves(sites)[0].shape[0]
  blocks = lax.map(function, split_blocks(sites, block))
  return jax.tree.map(lambda x: _join(x, n), blocks)


def split_blocks(sites: Any, block: int) -> Any:
  """Arranges arrays [N, ...] as [N / block, block, ...]; zeros pad the last.

  The rows of a block lie N / block apart: where a mesh splits N, each device
  then holds its fraction of every block. On a CPU that is one device, where no
  mesh can split N, neighbours are a block, uncopied.
  """

  def split(x: Array) -> Array:
    count = -(-len(x) // block)
    padding = ((0, count * block - len(x)), *[(0, 0)] * (x.ndim - 1))
    x = jnp.pad(x, padding)

    def neighbours(x: Array) -> Array:
      return x.reshape(count, block, *x.shape[1:])

    def apart(x: Array) -> Array:
      return x.reshape(block, count, *x.shape[1:]).swapaxes(0, 1)

    cpu = neighbours if _alone() else apart
    return lax.platform_dependent(x, cpu=cpu, default=apart)

  return jax.tree.map(split, sites)


def _join(x: Array, n: int) -> Array:
  """Brings blocks [count, block, ...] back to [n, ...]."""

  def neighbours(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])[:n]

  def apart(x: Array) -> Array:
    return neighbours(x.swapaxes(0, 1))

  cpu = neighbours if _alone() else apart
  return lax.platform_dependent(x, cpu=cpu, default=apart)


def _alone() -> bool:
  return jax.device_count() == 1
