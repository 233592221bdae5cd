"""Distances in float32 that keep their digits far from zero.

|x|² - 2 x·y + |y|² subtracts large numbers where the mean is large beside the
spread. So all is computed about the mean of the codes, which changes no
distance, and depends on the codes alone: no signal depends on another.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.numbers import (
  as_float32,
  check_shapes,
  exponents,
  finite_rows,
  power_of_two,
)
from lasers_jax.coding.search import (
  in_small_blocks,
  largest,
  largest_of_columns,
  matmul,
  take,
)


def squared_distances(x: Array, y: Array) -> Array:
  """Computes |x - y|² of rows x [N, D] and y [K, D], about the mean of y.

  Returns:
    float32 [N, K], not negative.

  Raises:
    ValueError: the shapes do not fit.
  """
  check_shapes(x=(x, 'N D'), y=(y, 'K D'))
  x, y = as_float32(x), as_float32(y)
  centre = lax.stop_gradient(jnp.mean(y, axis=0, keepdims=True))
  x, y = x - centre, y - centre
  squares = jnp.sum(x**2, axis=1, keepdims=True) + jnp.sum(y**2, axis=1)[None]
  return jnp.maximum(squares - 2 * matmul(x, y.T), 0.0)


class Centred(NamedTuple):
  """Codes about their mean, near 1 by a power of two."""

  codes: Array  # [K, D]; one that is not finite is a copy of the first that is
  mean: Array  # [1, D], or near it, in the same unit
  exponent: Array  # int32, of that unit
  index: Array  # int32 [K], of each code; of a copy that of the first


def centre(codebook: Array) -> Centred:
  """Moves codes [K, D] to the mean of those that are finite."""
  codes = as_float32(codebook)
  known = jnp.all(jnp.isfinite(codes), axis=1)
  codes = jnp.where(known[:, None], codes, 0.0)
  exponent = exponents(jnp.max(jnp.abs(codes), initial=0.0))
  codes *= power_of_two(-exponent)
  count = jnp.maximum(jnp.sum(known, dtype=jnp.float32), 1.0)
  mean = jnp.sum(codes, axis=0, keepdims=True) / count
  # Of few digits, so that taking it from numbers of few rounds nothing, and
  # what is as near stays as near.
  mean = jnp.round(mean * 2**12) / 2**12
  order = jnp.arange(len(codes), dtype=jnp.int32)
  index = jnp.where(known, order, jnp.argmax(known).astype(jnp.int32))
  return Centred(codes[index] - mean, mean, exponent, index)


def best_code(signals: Array, codebook: Array, by_distance: bool) -> Array:
  """Finds the nearest code of each signal, or that of the largest product.

  Neither changes when the mean is subtracted from all codes; the first does
  not either when it is subtracted from the signals as well.

  Args:
    signals: [N, D]; one with an entry that is not finite counts as zero.
    codebook: [K, D]; a code with such an entry is never the best.
    by_distance: whether by the distance, or by the inner product.

  Returns:
    int32 [N], in [0, K); the lowest index wins a tie.
  """
  codes, mean, exponent, index = centre(codebook)
  half_norms = 0.5 * jnp.sum(codes**2, axis=1)

  def prepare(block: Array) -> tuple[Array, Array]:
    """Returns the rows that codes are multiplied with, and how norms count."""
    block = finite_rows(block)
    # Neither a signal nor the difference to its mean may leave float32: the
    # unit of a row is that of its largest number, or of the codes.
    unit = exponents(jnp.max(jnp.abs(block), axis=1, keepdims=True))
    if not by_distance:
      rows = block * power_of_two(-unit)
      return rows, jnp.zeros_like(rows[:, :1])
    unit = jnp.maximum(unit, exponent)
    ratio = power_of_two(exponent - unit)
    return block * power_of_two(-unit) - ratio * mean, ratio

  def score(rows: Array, ratio: Array, codes: Array, half: Array) -> Array:
    products = matmul(rows, codes.T)
    return products - ratio * half[None] if by_distance else products

  def by_sites(signals: Array) -> Array:
    def search(block: Array) -> Array:
      return largest(score(*prepare(block), codes, half_norms))

    return in_small_blocks(search, signals, len(codes))

  def by_codes(signals: Array) -> Array:
    rows, ratio = prepare(signals)
    return largest_of_columns(
      lambda some: score(rows, ratio, *some), (codes, half_norms), len(rows)
    )

  best = lax.platform_dependent(
    as_float32(signals), cpu=by_sites, default=by_codes
  )
  return take(index, best)
