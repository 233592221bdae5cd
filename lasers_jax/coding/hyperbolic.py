"""Classes in hyperbolic space: the Poincaré ball of curvature -c.

R. Shimizu, Y. Mukuta and T. Harada, "Hyperbolic neural networks++", ICLR 2021.
With u in the tangent space at zero, the ball has the point x = exp0(u). c = 0
is flat space, which the formulas approach as c falls.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.coding.search import in_blocks, largest

# The largest √c |u|. A product of two hyperbolic functions of twice that is
# some 1e17, whose square is still a float32.
_FURTHEST = 10.0


def exp0(tangents: Array, c: float) -> Array:
  """Maps tangent vectors at zero into the ball: tanh(√c|u|) u / (√c|u|).

  Args:
    tangents: float32 [..., D], of any length.
    c: curvature, at least 0.

  Returns:
    float32 [..., D], of norm at most (1 - 1e-5) / √c; the tangents if c is 0.
  """
  if c == 0:
    return tangents
  norms = c**0.5 * _norms(tangents)
  return tangents * (jnp.minimum(jnp.tanh(norms), 1 - 1e-5) / norms)


def mlr_logits(
  tangents: Array, directions: Array, offsets: Array, c: float
) -> Array:
  """Computes the logits of unidirectional hyperbolic logistic regression.

  Section 3.1 of the paper at x = exp0(u), with λ = 2 / (1 - c|x|²):

    (2/√c) |z_k| asinh(λ √c⟨x, ẑ_k⟩ cosh(2√c r_k) - (λ - 1) sinh(2√c r_k))

  where λ√c x = sinh(2√c|u|) û and λ - 1 = cosh(2√c|u|), so that nothing
  saturates at the edge of the ball; |u| and |r_k| count up to 10/√c. The
  logit of class k is zero on the hyperplane through exp0(r_k ẑ_k) orthogonal
  to ẑ_k, and grows beyond it.

  Args:
    tangents: u, float32 [N, D], of any length.
    directions: z_k, float32 [K, D], of any length.
    offsets: r_k, float32 [K].
    c: curvature, at least 0. At 0 the logits are 4 |z_k| (⟨u, ẑ_k⟩ - r_k).

  Returns:
    float32 [N, K].
  """
  lengths = _norms(directions)
  units = directions / lengths
  lengths = lengths.T
  if c == 0:
    products = jnp.matmul(tangents, units.T, precision='highest')
    return 4 * lengths * (products - offsets[None])
  root = c**0.5
  norms = _norms(tangents)
  s = 2 * jnp.minimum(root * norms, _FURTHEST)
  r = 2 * jnp.clip(root * offsets, -_FURTHEST, _FURTHEST)
  # Large terms cancel: products of less than float32 would leave noise.
  along = jnp.matmul(
    tangents * (jnp.sinh(s) / norms),
    (units * jnp.cosh(r)[:, None]).T,
    precision='highest',
  )
  across = jnp.cosh(s) * jnp.sinh(r)[None]
  return 2 / root * lengths * jnp.arcsinh(along - across)


@functools.partial(jax.jit, static_argnames='c')
def most_likely_class(
  tangents: Array, directions: Array, offsets: Array, c: float
) -> Array:
  """Finds the class of the largest `mlr_logits` of each u: int32 [N]."""

  def search(block: Array) -> Array:
    return largest(mlr_logits(block, directions, offsets, c))

  return in_blocks(search, tangents, offsets.shape[0])


def _norms(x: Array) -> Array:
  """The norms [..., 1] of [..., D], positive and with a gradient at zero."""
  return jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-30))
