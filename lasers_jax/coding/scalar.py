"""Scalars as integers: the nearest of some levels, learned or laid out."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.numbers import as_float32


class Levels(NamedTuple):
  """Holds L levels for scalars, and the moving averages of their means.

  S. P. Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28,
  1982 (written in 1957): the scalars nearest to a level have it as their mean.
  """

  values: Array  # float32 [L], ascending
  counts: Array  # float32 [L], fractions of the scalars
  sums: Array  # float32 [L]


def spread_levels(x: Array, count: int) -> Levels:
  """Returns levels at evenly spaced quantiles of scalars, of any shape."""
  x = as_float32(x)
  at = (jnp.arange(count, dtype=jnp.float32) + 0.5) / count
  values = jnp.quantile(x, at)
  counts = jnp.full(count, 1 / count, jnp.float32)
  return Levels(values, counts, counts * values)


def lloyd_levels(x: Array, count: int, steps: int = 100) -> Array:
  """Finds levels [count] of about the minimum squared error of scalars.

  By Lloyd's algorithm, from evenly spaced quantiles.
  """
  x = as_float32(x)
  weights = jnp.ones_like(x)

  def step(_, levels):
    bins = nearest_level(x, levels.values)
    return update_levels(levels, x, bins, weights, 0.0)

  return lax.fori_loop(0, steps, step, spread_levels(x, count)).values


def mu_law_levels(x: Array, count: int, mu: float = 255.0) -> Array:
  """Returns levels [count] in [-max |x|, max |x|], even after companding.

  They are dense near zero: the µ-law of ITU-T G.711 in its continuous form,
  whose inverse is |x| = ((1 + µ)^|u| - 1) / µ.
  """
  u = jnp.linspace(-1.0, 1.0, count, dtype=jnp.float32)
  shape = jnp.sign(u) * jnp.expm1(jnp.abs(u) * jnp.log1p(mu)) / mu
  return shape * jnp.max(jnp.abs(as_float32(x)))


def nearest_level(x: Array, values: Array) -> Array:
  """Finds the nearest level of scalars: int32 in [0, L), of their shape.

  The lower level wins a tie.
  """
  middles = (values[1:] + values[:-1]) / 2
  return jnp.searchsorted(middles, x, method='scan_unrolled').astype(jnp.int32)


def update_levels(
  levels: Levels, x: Array, bins: Array, weights: Array, decay: float
) -> Levels:
  """Moves each level towards the mean of the scalars nearest to it.

  A level that nothing is nearest to stays where it is, to the last bit.

  Args:
    levels: L of them.
    x, bins, weights: of one shape: float32, int32 in [0, L) as `nearest_level`
      gives them, and float32; a weight of 0 leaves a scalar out.
    decay: of the moving averages, in [0, 1).
  """
  rate = (1 - decay) / jnp.maximum(jnp.sum(weights), 1e-30)
  zeros = jnp.zeros_like(levels.counts)
  batch = rate * zeros.at[bins].add(weights)
  counts = decay * levels.counts + batch
  sums = decay * levels.sums + rate * zeros.at[bins].add(weights * x)
  used = batch > 0
  means = sums / jnp.where(used, counts, 1.0)
  values = jnp.where(used, means, levels.values)
  # A level left behind may have been overtaken.
  order = jnp.argsort(values)
  return Levels(values[order], counts[order], sums[order])


def update_sizes(
  sizes: Array, x: Array, owners: Array, weights: Array, decay: float
) -> Array:
  """Updates the usual size of each owner's scalars, a root mean square.

  Args:
    sizes: float32 [K], positive.
    x, owners, weights: of one shape: float32, int32 in [0, K), and float32; a
      weight of 0 leaves a scalar out.
    decay: of the moving average per scalar, in [0, 1).
  """
  none = jnp.zeros_like(sizes)
  counts = none.at[owners].add(weights)
  squares = none.at[owners].add(weights * x**2)
  means = squares / jnp.maximum(counts, 1e-30)
  changed = sizes**2 + (1 - decay**counts) * (means - sizes**2)
  return jnp.maximum(jnp.sqrt(changed), 1e-12)
