"""Truncation of dense codes: the largest entries, and fractions as integers."""

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.omp import SparseCode


def keep_largest(values: Array, m: int) -> SparseCode:
  """Returns the m entries of largest magnitude, the largest first.

  Args:
    values: float32 [..., K].
    m: from 1 to K.

  Returns:
    SparseCode of [..., m]; the lowest index wins a tie.
  """
  _, atoms = lax.top_k(jnp.abs(values), m)
  kept = jnp.take_along_axis(values, atoms, axis=-1)
  return SparseCode(atoms.astype(jnp.int32), kept)


def quantize_fractions(fractions: Array, bits: int) -> Array:
  """Rounds fractions to integers of some bits; the largest becomes the highest.

  Args:
    fractions: float32 [..., m], none negative, in any unit: only their ratios
      are kept.
    bits: b, at least 1.

  Returns:
    int32 [..., m] in [0, 2^b - 1].
  """
  largest = jnp.max(fractions, axis=-1, keepdims=True)
  ratios = fractions / jnp.maximum(largest, 1e-30)
  return jnp.round(ratios * (2**bits - 1)).astype(jnp.int32)


def dequantize_fractions(levels: Array) -> Array:
  """Turns integers [..., m] back into fractions that sum to 1."""
  levels = levels.astype(jnp.float32)
  total = jnp.sum(levels, axis=-1, keepdims=True)
  return levels / jnp.maximum(total, 1.0)
