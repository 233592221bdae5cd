"""Some sites of each map: choosing them, taking them, and putting them back."""

import math

import jax.numpy as jnp
from jax import Array, lax


def best_positions(scores: Array, m: int, counts: Array | None = None) -> Array:
  """Finds the m sites of highest score of each map; the lowest wins a tie.

  Args:
    scores: float32 [B, N].
    m: from 1 to N.
    counts: int [B], sites to find in each map, at most m; None: m.

  Returns:
    int32 [B, m] in [0, N), ascending; N from `counts` on.
  """
  _, positions = lax.top_k(lax.stop_gradient(scores), m)
  if counts is not None:
    wanted = jnp.arange(m)[None] < counts[:, None]
    positions = jnp.where(wanted, positions, scores.shape[1])
  return jnp.sort(positions.astype(jnp.int32), axis=1)


def take_sites(sites: Array, positions: Array) -> Array:
  """Takes the sites at positions [B, m] of maps [B, N, ...]: [B, m, ...].

  Zeros for positions beyond.
  """
  taken = sites.at[_images(positions), positions]
  return taken.get(mode='fill', fill_value=0)


def put_sites(sites: Array, positions: Array, values: Array | float) -> Array:
  """Returns maps [B, N, ...] with values [B, m, ...] at positions [B, m].

  Those at positions beyond are left out.
  """
  return sites.at[_images(positions), positions].set(values)


def position_bits(n: int, m: int) -> int:
  """Returns the bits of which m of n sites they are: log2 C(n, m)."""
  return (math.comb(n, m) - 1).bit_length()  # exact, where log2 is not


def largest_n(bits: int, m: int, limit: int) -> int:
  """Returns the largest n with `position_bits(n, m)` equal to `bits`.

  0 where there is none, or where it is beyond the limit.
  """
  n = m
  while n <= limit and position_bits(n + 1, m) <= bits:
    n += 1
  return n if n <= limit and position_bits(n, m) == bits else 0


def _images(positions: Array) -> Array:
  return jnp.arange(positions.shape[0])[:, None]
