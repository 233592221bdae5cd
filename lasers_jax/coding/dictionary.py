"""Dictionaries: where they start, and how they learn online.

J. Mairal, F. Bach, J. Ponce and G. Sapiro, "Online dictionary learning for
sparse coding", ICML 2009.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.numbers import (
  as_float32,
  check_shapes,
  exponents,
  finite_rows,
  scale,
)
from lasers_jax.coding.omp import SparseCode

# Divisors are at least this: the smallest normal float32.
_TINY = float(jnp.finfo(jnp.float32).tiny)


def normalize_atoms(dictionary: Array) -> Array:
  """Scales the columns of a dictionary [D, K] to norm 1; zero stays zero."""
  return _normalize(dictionary, axis=0)


def random_dictionary(key: Array, shape: tuple[int, int]) -> Array:
  """Draws a dictionary [D, K] of atoms uniform on the sphere."""
  return normalize_atoms(jax.random.normal(key, shape, jnp.float32))


def normalize_codes(codes: Array) -> Array:
  """Scales the rows of codes or signals [..., D] to norm 1; zero stays zero."""
  return _normalize(codes, axis=-1)


def _normalize(vectors: Array, axis: int) -> Array:
  vectors = as_float32(vectors)
  # A power of two first: squares of small or large numbers leave float32.
  size = jnp.max(jnp.abs(vectors), axis=axis, keepdims=True, initial=0.0)
  size = jnp.where(size > 0, lax.stop_gradient(size), 1.0)
  vectors = scale(vectors, -exponents(size))
  squares = jnp.sum(vectors**2, axis=axis, keepdims=True)
  return vectors * lax.rsqrt(jnp.maximum(squares, 1e-24))


def random_codes(key: Array, shape: tuple[int, int]) -> Array:
  """Draws codes [K, D] uniform on the sphere."""
  k, d = shape
  return random_dictionary(key, (d, k)).T


def pick_signals(key: Array, signals: Array, k: int) -> Array:
  """Draws K of the signals [N, D], and adds a little noise.

  Where N < K, signals are drawn more than once, and differ by the noise: a
  hundredth of their deviation, or a millionth of their size.

  Returns:
    [K, D], float32.
  """
  which, noise = jax.random.split(key)
  signals = finite_rows(as_float32(signals))
  n, d = signals.shape
  rows = draw_rows(which, n, k)
  size = jnp.max(jnp.abs(signals))
  unit = exponents(jnp.where(size > 0, size, 1e-6))
  near_one = scale(signals, -unit)
  centred = near_one - jnp.mean(near_one, axis=0, keepdims=True)
  deviation = jnp.sqrt(jnp.mean(centred**2))
  spread = scale(jnp.maximum(deviation, 1e-4), unit)
  noise = jax.random.normal(noise, (k, d), jnp.float32)
  return signals[rows] + 1e-2 * spread * noise


def draw_rows(key: Array, n: int, k: int) -> Array:
  """Draws K of N rows, none twice if N >= K: int32 [K]."""
  if n < k:
    return jax.random.randint(key, (k,), 0, n, jnp.int32)
  return jax.random.choice(key, n, (k,), replace=False).astype(jnp.int32)


class OnlineStatistics(NamedTuple):
  """Holds the statistics of online learning (Mairal et al. 2009, eq. 11)."""

  codes: Array  # A [K, K], the mean of the outer products of codes
  products: Array  # B [D, K], the mean of the products of signals and codes


def init_statistics(d: int, k: int) -> OnlineStatistics:
  """Returns the statistics of no signal at all."""
  zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
  return OnlineStatistics(zeros((k, k)), zeros((d, k)))


def add_by_atom(sums: Array, code: SparseCode, rows: Array) -> Array:
  """Adds rows [N, D], weighted, to the sums [K, D] of the atoms they use."""
  for slot in range(code.atoms.shape[1]):
    weighted = code.coefficients[:, slot, None] * rows
    sums = sums.at[code.atoms[:, slot]].add(weighted)
  return sums


def add_statistics(
  statistics: OnlineStatistics, signals: Array, code: SparseCode
) -> OnlineStatistics:
  """Adds the sums over signals [N, D] with codes [N, S] to the statistics."""
  k = statistics.codes.shape[0]
  # By scatter: as a dense product of [N, K] codes it costs thirty times more.
  pairs = code.atoms[:, :, None] * k + code.atoms[:, None, :]
  values = code.coefficients[:, :, None] * code.coefficients[:, None, :]
  flat = statistics.codes.reshape(-1)
  flat = flat.at[pairs.reshape(-1)].add(values.reshape(-1))
  products = add_by_atom(statistics.products.T, code, signals)
  return OnlineStatistics(flat.reshape(k, k), products.T)


@jax.jit
def update_statistics(
  statistics: OnlineStatistics,
  signals: Array,
  code: SparseCode,
  forgetting: float,
) -> OnlineStatistics:
  """Fades the past by `forgetting` and adds the mean over a batch.

  Args:
    statistics: A [K, K] and B [D, K].
    signals: [N, D]; code: atoms [N, S], coefficients [N, S].
    forgetting: in [0, 1]; 1 forgets nothing.

  Raises:
    ValueError: the shapes do not fit.
  """
  check_shapes(
    codes=(statistics.codes, 'K K'),
    products=(statistics.products, 'D K'),
    signals=(signals, 'N D'),
    atoms=(code.atoms, 'N S'),
    coefficients=(code.coefficients, 'N S'),
  )
  past = jax.tree.map(lambda x: forgetting * x, statistics)
  # Roots, and not 1 / N once, so that the mean is taken in A and in B alike.
  root = signals.shape[0] ** -0.5
  code = SparseCode(code.atoms, root * code.coefficients)
  return add_statistics(past, root * signals, code)


@functools.partial(jax.jit, static_argnames='block')
def update_dictionary(
  dictionary: Array, statistics: OnlineStatistics, block: int = 32
) -> Array:
  """Moves each atom towards the best one given the others, in one pass.

  Block-coordinate descent of tr(D' D A) / 2 - tr(D' B) over atoms on the unit
  sphere, which never raises it. With block 1 it is algorithm 2 of Mairal et
  al. 2009. The atoms of a larger block move at once, each by a step bounded by
  the row sums of |A| within the block; that learns as well, and costs K / block
  products of matrices instead of K of vectors. An atom that no code has used
  stays as it is.

  Args:
    dictionary: [D, K], unit-norm columns.
    statistics: A [K, K] and B [D, K].
    block: atoms that move at once, at least 1; it need not divide K.

  Returns:
    [D, K], unit-norm columns.

  Raises:
    ValueError: the shapes do not fit.
  """
  check_shapes(
    dictionary=(dictionary, 'D K'),
    codes=(statistics.codes, 'K K'),
    products=(statistics.products, 'D K'),
  )
  k = dictionary.shape[1]
  block = min(block, k)
  floor = jnp.maximum(1e-6 * jnp.mean(jnp.diagonal(statistics.codes)), _TINY)

  def update_block(i: Array, rows: Array) -> Array:
    # The last block reaches back where K is not a multiple.
    start = jnp.minimum(i * block, k - block)
    take = functools.partial(
      lax.dynamic_slice_in_dim, start_index=start, slice_size=block
    )
    old, codes = take(rows), take(statistics.codes)
    within = take(codes, axis=1)
    pull = take(statistics.products, axis=1).T - codes @ rows
    bound = jnp.sum(jnp.abs(within), axis=1, keepdims=True)
    new = old + pull / jnp.maximum(bound, floor)
    squares = jnp.sum(new**2, axis=1, keepdims=True)
    moves = (jnp.diagonal(within)[:, None] > floor) & (squares > 1e-12)
    new = jnp.where(moves, new * lax.rsqrt(squares + _TINY), old)
    return lax.dynamic_update_slice_in_dim(rows, new, start, axis=0)

  return lax.fori_loop(0, -(-k // block), update_block, dictionary.T).T


def forget_atoms(
  statistics: OnlineStatistics, which: Array
) -> OnlineStatistics:
  """Removes some atoms from the statistics; which: bool [K]."""
  keep = jnp.where(which, jnp.float32(0), jnp.float32(1))
  return OnlineStatistics(
    statistics.codes * keep[:, None] * keep[None],
    statistics.products * keep[None],
  )
