"""Non-negative least squares, for many tiny problems at once.

J. Kim and H. Park, "Fast nonnegative matrix factorization: an active-set-like
method and comparisons", SIAM J. Sci. Comput. 33(6), 2011 (algorithm 2: block
principal pivoting).
"""

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.numbers import as_float32

# Exchanges of everything at once without progress, before single ones.
_PATIENCE = 3


def nonnegative_least_squares(products: Array, targets: Array) -> Array:
  """Minimizes x'Hx / 2 - c'x over x >= 0.

  Args:
    products: H, float32 [N, S, S], symmetric and positive definite.
    targets: c, float32 [N, S].

  Returns:
    x, float32 [N, S].
  """
  products, targets = as_float32(products), as_float32(targets)
  n, s = targets.shape
  # In units in which the diagonal is 1, so that one tolerance serves all.
  units = jnp.diagonal(products, axis1=1, axis2=2)
  units = lax.rsqrt(jnp.where(units > 0, units, 1.0))
  products = products * units[:, :, None] * units[:, None]
  targets = targets * units
  tolerance = 1e-6 * jnp.max(jnp.abs(targets), axis=1, keepdims=True)

  def infeasible(free: Array) -> tuple[Array, Array]:
    x = _solve_free(products, targets, free)
    slope = jnp.einsum('nst,nt->ns', products, x) - targets
    return x, jnp.where(free, x, slope) < -tolerance

  def exchange(carry):
    free, _, wrong, best, patience, step = carry
    count = jnp.sum(wrong, axis=1)
    progress = count < best
    patience = jnp.where(progress, _PATIENCE, patience - 1)
    last = s - 1 - jnp.argmax(wrong[:, ::-1], axis=1)
    single = wrong & (jnp.arange(s)[None] == last[:, None])
    swap = jnp.where((patience >= 0)[:, None], wrong, single)
    free = free ^ swap
    best = jnp.minimum(best, count)
    return free, *infeasible(free), best, patience, step + 1

  def going(carry):
    return jnp.any(carry[2]) & (carry[-1] < 20 * s)

  free = jnp.ones((n, s), bool)
  start = free, *infeasible(free)
  counters = jnp.full(n, s + 1), jnp.full(n, _PATIENCE), 0
  free, x, *_ = lax.while_loop(going, exchange, (*start, *counters))
  return units * jnp.where(free, jnp.maximum(x, 0.0), 0.0)


class NonnegativeFit:
  """Holds the normal equations of the chosen atoms, solved for x >= 0.

  As in pursuit.py the arrays have the signals last.
  """

  def __init__(self, s: int, b: int):
    self._products = jnp.zeros((s, s, b), jnp.float32)
    self._targets = jnp.zeros((s, b), jnp.float32)

  def add(self, k, going, start, products, square):
    """Adds the k-th atom; one of a pursuit that stopped has no target."""
    products = jnp.where(going[None], products, 0.0)
    square = jnp.where(going, square, 1.0)
    self._products = (
      (self._products.at[k, :k].set(products).at[:k, k].set(products))
      .at[k, k]
      .set(square)
    )
    self._targets = self._targets.at[k].set(jnp.where(going, start, 0.0))

  def coefficients(self, k: int) -> Array:
    """Returns the coefficients [k, b] of the first k atoms."""
    products = self._products[:k, :k].transpose(2, 0, 1)
    return nonnegative_least_squares(products, self._targets[:k].T).T


def _solve_free(products: Array, targets: Array, free: Array) -> Array:
  """Solves H x = c over the free entries; the others are 0."""
  both = free[:, :, None] & free[:, None]
  identity = jnp.eye(free.shape[1], dtype=products.dtype)[None]
  matrix = jnp.where(both, products, identity)
  right = jnp.where(free, targets, 0.0)
  return jnp.linalg.solve(matrix, right[:, :, None])[:, :, 0]
