"""Pursuits over atoms that are nearly in the span of others.

There the Gram matrix no longer distinguishes the atoms: a sine of s is s² in
it, next to 1. The vectors themselves do, so a basis of the chosen atoms is
kept, and correlations are those of the residual itself. As in pursuit.py the
small arrays have the signals last.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.nonnegative import nonnegative_least_squares
from lasers_jax.coding.search import largest, matmul, take

# A pursuit stops where the best atom would explain less than this fraction of
# the signal's norm, or where it lies this close (squared sine) to the span of
# the chosen atoms; both are what float32 can tell from nothing.
CORRELATION_FLOOR = 1e-6
SQUARED_SINE_FLOOR = 5e-8
# What float32 can tell of a difference of squares.
GRAM_FLOOR = 1e-6


class Basis(NamedTuple):
  """Holds an orthonormal basis of the first atoms of each pursuit, then zeros.

  Row j of `inverse` holds the weights of the atoms in its j-th vector: it is
  the inverse of the Cholesky factor of the atoms' Gram matrix.
  """

  vectors: Array  # [S, b, D]
  inverse: Array  # [S, S, b]


def empty_basis(s: int, b: int, d: int) -> Basis:
  zeros = jnp.zeros((s, b, d), jnp.float32), jnp.zeros((s, s, b), jnp.float32)
  return Basis(*zeros)


def extend(basis: Basis, k: Array, row: Array, going: Array):
  """Adds atoms [b, D] as the k-th ones, by Gram-Schmidt, twice.

  Args:
    basis: of k atoms.
    k: scalar; row: [b, D].
    going: bool [b], whether the pursuit goes on.

  Returns:
    The basis, and bool [b]: whether the pursuit goes on and the atom lies
    outside the span; zeros are added where not.
  """
  vectors, inverse = basis
  away, along = row, jnp.float32(0)
  for _ in range(2):  # the second time for what rounding left
    weights = jnp.sum(vectors * away[None], axis=2)
    away = away - jnp.sum(weights[:, :, None] * vectors, axis=0)
    along += weights
  square, squared_sine = jnp.sum(row**2, axis=1), jnp.sum(away**2, axis=1)
  going = going & (squared_sine > SQUARED_SINE_FLOOR * square)
  scale = jnp.where(going, lax.rsqrt(jnp.where(going, squared_sine, 1.0)), 0.0)
  own = -scale[None] * jnp.sum(along[:, None] * inverse, axis=0)
  inverse = inverse.at[k].set(own).at[k, k].set(scale)
  return Basis(vectors.at[k].set(scale[:, None] * away), inverse), going


class _State(NamedTuple):
  basis: Basis
  atoms: Array  # int32 [S, b]
  coefficients: Array  # [S, b]
  rest: Array  # [b, D]
  taken: Array  # bool [b, K]
  beyond: Array  # [b, K], the squared norm of each atom beyond the span
  going: Array  # bool [b]
  count: Array  # int32 [b]


def pursue_precisely(
  signals, norm, residual_norm, limit, dictionary, atoms, good, options
):
  """Runs the pursuits of signals [b, D], of norms [b]; see `batch_omp`.

  Args:
    atoms: int32 [S, b], of which `good` [b] are known to be the first ones.

  Returns:
    atoms int32 [S, b], coefficients [S, b], or after each step [S, S, b], and
    the atoms in use, int32 [b].
  """
  rows = dictionary.T
  squares = jnp.sum(rows**2, axis=1)
  s, columns = options.sparsity, jnp.arange(len(rows), dtype=jnp.int32)[None]

  def step(i: Array, state: _State):
    atom = _choose(state, dictionary, squares, options)
    atom = jnp.where(i < good, take(state.atoms, i), atom)
    row = take(rows, atom)
    gain = jnp.sum(row * state.rest, axis=1)
    gain = gain if options.positive else jnp.abs(gain)
    size = jnp.sqrt(take(squares, atom))
    going = state.going & (gain > CORRELATION_FLOOR * norm * size)
    if residual_norm is not None:
      left = jnp.sqrt(jnp.sum(state.rest**2, axis=1))
      going &= left > residual_norm
    if limit is not None:
      going &= i < limit
    basis, going = extend(state.basis, i, row, going)
    atoms = state.atoms.at[i].set(atom)
    vector, beyond = basis.vectors[i], state.beyond
    if options.positive:
      used = jnp.arange(s)[:, None] < state.count[None] + going[None]
      coefficients, rest = _fit(signals, rows, atoms, used)
    else:
      along = jnp.sum(vector * state.rest, axis=1)
      coefficients = state.coefficients + along[None] * basis.inverse[i]
      rest = state.rest - along[:, None] * vector
    if options.selection == 'ols':
      beyond = beyond - matmul(vector, dictionary) ** 2
    # No scatter: over several devices it would gather the atoms of all sites.
    taken = state.taken | (atom[:, None] == columns)
    count = state.count + going
    state = _State(
      basis, atoms, coefficients, rest, taken, beyond, going, count
    )
    return state, coefficients if options.path else None

  start = _start(signals, norm, squares, atoms)
  order = jnp.arange(s, dtype=jnp.int32)
  state, path = lax.scan(lambda state, i: step(i, state), start, order)
  coefficients = path if options.path else state.coefficients
  return state.atoms, coefficients, state.count


def _choose(state: _State, dictionary, squares, options) -> Array:
  """Returns the next atom of each pursuit, int32 [b]."""
  scores = matmul(state.rest, dictionary)
  if not options.positive:
    scores = jnp.abs(scores)
  if options.selection == 'ols':
    scores = ols_scores(scores, state.beyond, squares[None])
  return largest(jnp.where(state.taken, -1.0, scores))


def _start(signals: Array, norm: Array, squares: Array, atoms: Array) -> _State:
  """Nothing is chosen yet."""
  (s, b), d, k = atoms.shape, signals.shape[1], len(squares)
  return _State(
    basis=empty_basis(s, b, d),
    atoms=atoms,
    coefficients=jnp.zeros((s, b), jnp.float32),
    rest=signals,
    taken=jnp.zeros((b, k), bool),
    beyond=jnp.broadcast_to(squares[None], (b, k)),
    going=norm > 0,
    count=jnp.zeros(b, jnp.int32),
  )


def ols_scores(correlations: Array, beyond: Array, squares: Array) -> Array:
  """Scores atoms by the fall of the squared error; 0 for atoms in the span."""
  far = beyond > GRAM_FLOOR * squares
  return jnp.where(far, correlations**2 / jnp.where(far, beyond, 1.0), 0.0)


def _fit(signals, rows, atoms, used) -> tuple[Array, Array]:
  """Fits signals [b, D] by the atoms [S, b] in use, with no negative weight.

  Returns:
    The coefficients [S, b], and what they leave [b, D].
  """
  chosen = jnp.where(used[:, :, None], take(rows, atoms), 0.0)
  products = jnp.einsum('sbd,tbd->bst', chosen, chosen, precision='highest')
  identity = jnp.eye(len(atoms), dtype=jnp.float32)[None]
  products += jnp.where(used.T[:, :, None], 0.0, identity)
  targets = jnp.einsum('sbd,bd->bs', chosen, signals, precision='highest')
  weights = nonnegative_least_squares(products, targets)
  weights = jnp.where(used.T, weights, 0.0)
  fit = jnp.einsum('bs,sbd->bd', weights, chosen, precision='highest')
  return weights.T, signals - fit
