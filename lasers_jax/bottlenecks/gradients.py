"""Gradients of quantizers: how the decoder's gradient reaches the encoder.

Each function takes z and its quantized values, both [..., D], and returns the
quantized values, to the last bit. They differ in the gradient alone, which
reaches z and never the quantized values.
"""

import jax.numpy as jnp
from jax import Array, lax


def straight_through(z: Array, quantized: Array) -> Array:
  """Passes the gradient to z unchanged (VQ-VAE, arXiv 1711.00937, §3.2)."""
  return _with_gradient_of(z, quantized)


def rotation(z: Array, quantized: Array) -> Array:
  """Rotates the gradient as z was rotated to its code (arXiv 2410.06424, §4).

  The Jacobian is |q| / |z| R, R the rotation in the plane of z and q that takes
  the direction of z to that of q, both held constant. For z = 0 it is zero.
  """
  start, end = lax.stop_gradient((z, quantized))
  norm, scale = _norm(start), _norm(end)
  one, other = start / norm, end / scale
  middle = one + other
  middle = middle / _norm(middle)
  along, across = (
    jnp.sum(z * x, axis=-1, keepdims=True) for x in (one, middle)
  )
  turned = z - 2 * across * middle + 2 * along * other
  return _with_gradient_of(scale / norm * turned, quantized)


GRADIENTS = {'straight_through': straight_through, 'rotation': rotation}


def _with_gradient_of(x: Array, value: Array) -> Array:
  # The usual x + sg(value - x) rounds, in bfloat16 visibly; this adds zero.
  return lax.stop_gradient(value) + (x - lax.stop_gradient(x))


def _norm(x: Array) -> Array:
  return jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)
