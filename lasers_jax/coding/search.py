"""The index of the best atom or code for each site, and the sites in blocks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

# A block of signals times K atoms that stays in the cache of a CPU core.
_ENTRIES_PER_BLOCK = 2**18


def largest(scores: Array) -> Array:
  """Finds the largest entry of each row; the lowest index wins a tie.

  Args:
    scores: float32 [N, K].

  Returns:
    int32 [N], in [0, K).
  """
  n, k = scores.shape
  # XLA:CPU runs argmax as a scalar loop and max as vector code: so find the
  # best group of columns by max, and the column inside that group by argmax.
  width = next(w for w in (32, 16, 8, 4, 2, 1) if k % w == 0)
  groups = scores.reshape(n, k // width, width)
  group = jnp.argmax(jnp.max(groups, axis=2), axis=1)
  inside = jnp.take_along_axis(groups, group[:, None, None], axis=1)[:, 0]
  return (group * width + jnp.argmax(inside, axis=1)).astype(jnp.int32)


def in_blocks(function: Callable[[Array], tuple], signals: Array, k: int):
  """Applies a function of signals block by block where that is faster.

  On a CPU each block has the same shape whatever N is, so that the arithmetic
  of a signal, to the last bit, does not depend on how many others came along.

  Args:
    function: maps [block, D] to a pytree of arrays [block, ...].
    signals: [N, D].
    k: the number of atoms that each signal is compared with.

  Returns:
    What `function` returns for all signals: a pytree of arrays [N, ...].
  """
  if jax.default_backend() != 'cpu':
    return function(signals)
  n, d = signals.shape
  block = min(max(64, _ENTRIES_PER_BLOCK // (1 << (k - 1).bit_length())), 1024)
  count = -(-n // block)
  padded = jnp.pad(signals, ((0, count * block - n), (0, 0)))
  # The rows of a block lie `count` apart: where a mesh splits N, each device
  # then holds its share of every block.
  blocks = padded.reshape(block, count, d).swapaxes(0, 1)
  results = lax.map(function, blocks)

  def join(x: Array) -> Array:
    return x.swapaxes(0, 1).reshape(count * block, *x.shape[2:])[:n]

  return jax.tree.map(join, results)
