"""Codes on a grid: each of a few scalars is rounded to one of its levels.

F. Mentzer, D. Minnen, E. Agustsson and M. Tschannen, "Finite scalar
quantization: VQ-VAE made simple", ICLR 2024 (section 3.1, appendix A.1).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

# The shrinkage of the appendix, which keeps the rounded ends within the grid.
# Beyond so many levels it would take the outermost ones out of reach.
_SHRINK = 1e-3
MOST_LEVELS = 1000
MOST_CODES = 2**32

Levels = tuple[int, ...]
_jit = functools.partial(jax.jit, static_argnames='levels')


@_jit
def bound(x: Array, levels: Levels) -> Array:
  """Squashes scalars into the range of their levels (the paper's f).

  In steps of the grid it is tanh(x + shift) (L - 1) / 2 - offset, where offset
  is 1/2 for an even L, which has no level in its middle, and shift maps 0 to
  about 0. The shift is the tan of the appendix; atanh would map 0 to 0. From
  L = 4 on they differ by less than 1e-3, and atanh has no value at L = 2.
  There, zero is far from the threshold (x = -1.56).

  Args:
    x: float32 [N, d].
    levels: L of each of the d scalars, from 2 to MOST_LEVELS.

  Returns:
    float32 [N, d], in units of ⌊L/2⌋ steps: about [-1, 1].
  """
  half = [(n - 1) * (1 - _SHRINK) / 2 for n in levels]
  offset = [0.5 * (n % 2 == 0) for n in levels]
  shift = [math.tan(o / h) for o, h in zip(offset, half, strict=True)]
  half, offset, shift = (
    jnp.array(x, jnp.float32)[None] for x in (half, offset, shift)
  )
  return (jnp.tanh(x + shift) * half - offset) / _middle(levels)


@_jit
def nearest_levels(bounded: Array, levels: Levels) -> Array:
  """Rounds what `bound` returns: int32 [N, d], each in [0, L)."""
  middle = _middle(levels)
  return (jnp.round(bounded * middle) + middle).astype(jnp.int32)


@_jit
def level_values(digits: Array, levels: Levels) -> Array:
  """Returns the values of levels [N, d]: float32 [N, d], in [-1, 1]."""
  middle = _middle(levels)
  return (digits.astype(jnp.float32) - middle) / middle


@_jit
def to_index(digits: Array, levels: Levels) -> Array:
  """Writes the levels of each row as one number, the first varying fastest.

  Args:
    digits: int32 [N, d], each in [0, L).
    levels: L of each; their product is at most MOST_CODES.

  Returns:
    [N], from 0 to the product of the levels less 1: int32, or uint32 where the
    product exceeds 2^31.
  """
  strides = _strides(levels)
  digits = digits.astype(strides.dtype)
  return jnp.sum(digits * strides, axis=1, dtype=strides.dtype)


@_jit
def to_digits(index: Array, levels: Levels) -> Array:
  """Inverts `to_index`: [N] to int32 [N, d]."""
  strides = _strides(levels)
  sizes = jnp.array(levels, strides.dtype)[None]
  digits = index[:, None].astype(strides.dtype) // strides % sizes
  return digits.astype(jnp.int32)


def _middle(levels: Levels) -> Array:
  return jnp.array([n // 2 for n in levels], jnp.float32)[None]


def _strides(levels: Levels) -> Array:
  """What one level of each scalar adds to an index, of the index's type."""
  strides = [math.prod(levels[:i]) for i in range(len(levels))]
  dtype = jnp.uint32 if math.prod(levels) > 2**31 else jnp.int32
  return jnp.array(strides, dtype)[None]
