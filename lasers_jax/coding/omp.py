"""Batch-OMP: sparse codes of many signals over one dictionary.

R. Rubinstein, M. Zibulevsky and M. Elad, "Efficient implementation of the
K-SVD algorithm using batch orthogonal matching pursuit", Technion 2008.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.search import in_blocks, largest

# A pursuit stops where the best atom would explain less than this share of the
# signal's norm, or where it lies this close (squared sine) to the span of the
# chosen atoms; both are what float32 can tell from nothing.
_CORRELATION_FLOOR = 1e-6
_SQUARED_SINE_FLOOR = 1e-6


class SparseCode(NamedTuple):
  """A code of S atoms a site; the order is the order of the pursuit."""

  atoms: Array  # int32 [N, S], each in [0, K), distinct within a site
  coefficients: Array  # float32 [N, S]


@functools.partial(jax.jit, static_argnames='sparsity')
def batch_omp(signals: Array, dictionary: Array, sparsity: int) -> SparseCode:
  """Codes each signal with S atoms by orthogonal matching pursuit.

  Each step chooses the atom of the largest absolute correlation with the
  residual (the lowest index wins a tie) and fits all chosen coefficients anew
  by least squares. A pursuit that has nothing left to explain, or meets an
  atom within the span of those chosen, stops: the remaining coefficients are
  zero, and the remaining slots hold the lowest atoms that are not in use.

  Args:
    signals: [N, D], of any float type; computed in float32. A signal with an
      entry that is not finite is coded as zero.
    dictionary: [D, K], with unit-norm columns; a zero column is never chosen
      while anything else is to be had.
    sparsity: S, at least 1 and at most K. S >= D is allowed.

  Returns:
    SparseCode of atoms int32 [N, S] and coefficients float32 [N, S], finite.

  Raises:
    ValueError: the shapes do not fit, or S is not in [1, K].
  """
  atoms, path = batch_omp_path(signals, dictionary, sparsity)
  return SparseCode(atoms, path[:, -1])


@functools.partial(jax.jit, static_argnames='sparsity')
def batch_omp_path(
  signals: Array, dictionary: Array, sparsity: int
) -> tuple[Array, Array]:
  """Codes like `batch_omp`, and keeps the coefficients after every step.

  Returns:
    atoms int32 [N, S], and coefficients float32 [N, S, S]: entry [n, s] is the
    least-squares fit over the first s + 1 atoms, zero beyond them.
  """
  _check_shapes(signals, dictionary, sparsity)
  dictionary = dictionary.astype(jnp.float32)
  gram = dictionary.T @ dictionary

  def pursue(block: Array):
    return _pursue(block, dictionary, gram, sparsity)

  signals = signals.astype(jnp.float32)
  return in_blocks(pursue, signals, dictionary.shape[1])


def _check_shapes(signals: Array, dictionary: Array, sparsity: int) -> None:
  if signals.ndim != 2 or dictionary.ndim != 2:
    raise ValueError(
      'signals must be [N, D] and the dictionary [D, K], got '
      f'{signals.shape} and {dictionary.shape}'
    )
  if signals.shape[1] != dictionary.shape[0]:
    raise ValueError(
      f'signals have {signals.shape[1]} entries, atoms {dictionary.shape[0]}'
    )
  if not 1 <= sparsity <= dictionary.shape[1]:
    raise ValueError(
      f'the sparsity S must be from 1 to K = {dictionary.shape[1]}, '
      f'got {sparsity}'
    )


def _pursue(signals: Array, dictionary: Array, gram: Array, sparsity: int):
  """One block of signals [b, D]; the small algebra has the signals last.

  `inverse` [S, S, b] is the inverse of the Cholesky factor of the chosen
  atoms' Gram matrix, which grows by a row a step: row k holds the weights of
  the chosen atoms in the k-th vector of their orthonormal basis.
  """
  signals, exponent, norm = _normalize(signals)
  b = signals.shape[0]
  start = signals @ dictionary  # [b, K]
  correlations = start
  atoms = jnp.zeros((sparsity, b), jnp.int32)
  inverse = jnp.zeros((sparsity, sparsity, b))
  coefficients = jnp.zeros((sparsity, b))
  path = []
  going = norm > 0
  for k in range(sparsity):
    atom = largest(jnp.abs(correlations))
    best = jnp.take_along_axis(correlations, atom[:, None], axis=1)[:, 0]
    basis, squared_sine = _cross(inverse[:k, :k], gram, atoms[:k], atom)
    going &= jnp.abs(best) > _CORRELATION_FLOOR * norm
    going &= squared_sine > _SQUARED_SINE_FLOOR
    atoms = atoms.at[k].set(jnp.where(going, atom, _lowest_free(atoms[:k])))
    scale = jnp.where(going, lax.rsqrt(jnp.where(going, squared_sine, 1.0)), 0)
    row = -scale[None] * jnp.sum(basis[:, None] * inverse[:k, :k], axis=0)
    inverse = inverse.at[k, :k].set(row).at[k, k].set(scale)
    coefficients += (best * scale)[None] * inverse[k]
    path.append(coefficients)
    correlations = start - sum(
      coefficients[j][:, None] * gram[atoms[j]] for j in range(k + 1)
    )
  path = jnp.ldexp(jnp.stack(path), exponent[None, None])
  return atoms.T, path.transpose(2, 0, 1)


def _normalize(signals: Array) -> tuple[Array, Array, Array]:
  """Brings signals near 1 by powers of two, which rounds nothing.

  Without it the squares of signals below 1e-19 or above 1e19 leave float32.

  Returns:
    signals [b, D] with entries up to 1, the exponents int32 [b] that undo the
    scaling, and the norms [b] of the scaled signals.
  """
  finite = jnp.all(jnp.isfinite(signals), axis=1, keepdims=True)
  signals = jnp.where(finite, signals, 0.0)
  _, exponent = jnp.frexp(jnp.max(jnp.abs(signals), axis=1))
  signals = jnp.ldexp(signals, -exponent[:, None])
  return signals, exponent, jnp.sqrt(jnp.sum(signals**2, axis=1))


def _cross(inverse: Array, gram: Array, atoms: Array, atom: Array):
  """Splits an atom into its part along the basis and the rest.

  Args:
    inverse: [k, k, b], see `_pursue`; atoms: [k, b] chosen so far.
    gram: [K, K]; atom: [b], the new one.

  Returns:
    The inner products with the basis [k, b], and the squared norm [b] of what
    stands orthogonal to it.
  """
  products = gram[atoms, atom[None]]  # [k, b]
  basis = jnp.sum(inverse * products[None], axis=1)
  return basis, gram[atom, atom] - jnp.sum(basis**2, axis=0)


def _lowest_free(atoms: Array) -> Array:
  """Returns [b], the lowest atom that is not among atoms [k, b]."""
  candidates = jnp.arange(atoms.shape[0] + 1)
  taken = jnp.any(atoms[:, None] == candidates[None, :, None], axis=0)
  return jnp.argmin(taken, axis=0).astype(jnp.int32)


def reconstruct(code: SparseCode, dictionary: Array) -> Array:
  """Adds up the atoms of each code: signals float32 [N, D].

  Args:
    code: atoms [N, S] and coefficients [N, S].
    dictionary: [D, K].
  """
  rows = dictionary.astype(jnp.float32).T
  # Slot by slot: nothing of [N, S, D] is built.
  return sum(
    code.coefficients[:, s, None] * rows[code.atoms[:, s]]
    for s in range(code.atoms.shape[1])
  )
