"""Coefficients as integers: a uniform quantizer for each step of a pursuit."""

import jax.numpy as jnp
from jax import Array


def quantize(coefficients: Array, scales: Array, bits: int) -> Array:
  """Rounds coefficients to integers of so many bits.

  Zero stays zero, and what lies beyond a scale is clipped to it.

  Args:
    coefficients: float32 [..., S].
    scales: float32 [S], positive: the largest magnitude of each step.
    bits: b, at least 2.

  Returns:
    int32 [..., S] in [-m, m], m = 2^(b - 1) - 1.
  """
  m = 2 ** (bits - 1) - 1
  shape = (1,) * (coefficients.ndim - 1) + scales.shape
  bins = jnp.round(coefficients / scales.reshape(shape) * m)
  return jnp.clip(bins, -m, m).astype(jnp.int32)


def dequantize(bins: Array, scales: Array, bits: int) -> Array:
  """Turns the integers of `quantize` back into coefficients [..., S]."""
  m = 2 ** (bits - 1) - 1
  shape = (1,) * (bins.ndim - 1) + scales.shape
  return bins.astype(jnp.float32) * (scales / m).reshape(shape)
