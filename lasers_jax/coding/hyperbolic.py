"""Classes in hyperbolic space: the Poincaré ball of curvature -c.

R. Shimizu, Y. Mukuta and T. Harada, "Hyperbolic neural networks++", ICLR 2021.
A vector u of the tangent space at zero stands for the point of the ball
exp0(u) = tanh(√c|u|) u / (√c|u|). c = 0 is flat space, the limit of the
formulas.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.coding.distances import squared_distances
from lasers_jax.coding.numbers import as_float32, finite_rows
from lasers_jax.coding.search import in_blocks, largest

# The largest √c |u|. A product of two hyperbolic functions of twice that is
# some 1e17, whose square is still a float32.
_FURTHEST = 10.0


def mlr_logits(
  tangents: Array, directions: Array, offsets: Array, c: float
) -> Array:
  """Computes the logits of unidirectional hyperbolic logistic regression.

  Section 3.1 of the paper at x = exp0(u), with λ = 2 / (1 - c|x|²):

    (2/√c) |z_k| asinh(λ √c⟨x, ẑ_k⟩ cosh(2√c r_k) - (λ - 1) sinh(2√c r_k))

  where λ√c x = sinh(2√c|u|) û and λ - 1 = cosh(2√c|u|), so that nothing
  saturates at the edge of the ball; |u| and |r_k| are clipped to 10/√c. The
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
  # Large terms cancel where u points along z_k. By the addition theorem what
  # is left is sinh(s - r), less what the angle θ between them takes away, of
  # which 1 - cos θ is half the squared distance of the unit vectors.
  away = squared_distances(tangents / norms, units) / 2
  short = jnp.sinh(s) * jnp.cosh(r)[None] * away
  return 2 / root * lengths * jnp.arcsinh(jnp.sinh(s - r[None]) - short)


@functools.partial(jax.jit, static_argnames='c')
def most_likely_class(
  tangents: Array, directions: Array, offsets: Array, c: float
) -> Array:
  """Finds the class of the largest `mlr_logits` of each u: int32 [N].

  A tangent with an entry that is not finite counts as zero; a class with such
  an entry is never chosen.
  """
  tangents, directions, offsets = map(
    as_float32, (tangents, directions, offsets)
  )

  def search(block: Array) -> Array:
    logits = mlr_logits(block, directions, offsets, c)
    return largest(jnp.where(known, logits, -jnp.inf))

  known = jnp.all(jnp.isfinite(directions), axis=1) & jnp.isfinite(offsets)
  known, tangents = known[None], finite_rows(tangents)
  directions = finite_rows(directions)  # which would spoil their mean
  return in_blocks(search, tangents, offsets.shape[0])


def _norms(x: Array) -> Array:
  """The norms [..., 1] of [..., D], positive and with a gradient at zero."""
  return jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-30))
