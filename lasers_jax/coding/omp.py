"""Batch-OMP: sparse codes of many signals over one dictionary.

R. Rubinstein, M. Zibulevsky and M. Elad, "Efficient implementation of the
K-SVD algorithm using batch orthogonal matching pursuit", Technion 2008. The
pursuit itself is in pursuit.py.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.numbers import (
  check_real,
  check_shapes,
  exponents,
  scale,
)
from lasers_jax.coding.precise import Basis, empty_basis, extend
from lasers_jax.coding.pursuit import Options, Pursuit, pursue
from lasers_jax.coding.search import take


class SparseCode(NamedTuple):
  """Holds a code of S atoms a site, in the order of the pursuit."""

  atoms: Array  # int32 [N, S], each in [0, K), distinct within a site
  coefficients: Array  # float32 [N, S]


class CountedCode(NamedTuple):
  """Holds a code with its own number of atoms for each site."""

  atoms: Array  # int32 [N, S], as of a SparseCode
  coefficients: Array  # float32 [N, S], zero from `count` on
  count: Array  # int32 [N], how many atoms are in use


def batch_omp(
  signals: Array,
  dictionary: Array,
  sparsity: int,
  *,
  selection: str = 'omp',
  precision: str = 'float32',
  rescore: bool = True,
  residual_norm: Array | float | None = None,
  limit: Array | None = None,
  positive: bool = False,
  gram: Array | None = None,
) -> SparseCode | CountedCode:
  """Codes each signal with S atoms by orthogonal matching pursuit.

  Each step chooses an atom (the lowest index wins a tie) and fits all chosen
  coefficients anew by least squares. A pursuit stops when the residual is zero,
  or when the next atom lies in the span of those chosen: the remaining
  coefficients are then zero, and the remaining slots hold the lowest atoms that
  are not in use.

  The gradient is the exact one of the least-squares fit with the support
  held, with respect to signals and dictionary. For the straight-through
  estimator of LASERS put both in `jax.lax.stop_gradient` first.

  Args:
    signals: [N, D], of any real type; computed in float32. A signal with an
      entry that is not finite is coded as zero. N may be 0.
    dictionary: [D, K], with columns of one norm, usually 1: the correlation is
      the product with the column as it is, and so longer ones are preferred.
      A zero column, or one with an entry that is not finite, is never chosen.
    sparsity: S, at least 1 and at most K. S >= D is allowed.
    selection: 'omp' chooses the largest |correlation| with the residual;
      'ols' (orthogonal least squares) the atom that leaves the least residual:
      slower, up to 4 % less squared error for the same S.
    precision: of the correlations: 'float32', or 'bfloat16', which is faster
      where the hardware has such products, and finds 91 to 99 % of the same
      supports. The coefficients are float32 all the same. Goes with 'omp'.
    rescore: in 'bfloat16', compare the two best candidates in float32.
    residual_norm: scalar or [N]: a pursuit stops once the norm of its residual
      is at most this.
    limit: int [N], atoms that each signal may use, from 0 to S; a signal with
      0 is masked out and coded as zero.
    positive: the coefficients are not negative: each step chooses the largest
      correlation and fits by non-negative least squares (NNOMP, Bruckstein,
      Elad and Zibulevsky 2008). Goes with 'omp'. An atom that the fit drops
      keeps its slot, with coefficient 0.
    gram: [K, K], dictionary.T @ dictionary, if it has been computed; saves time
      in many calls with one dictionary.

  Returns:
    SparseCode of atoms int32 [N, S] and coefficients float32 [N, S], finite:
    the largest float32 where the fit is beyond it. With `residual_norm` a
    CountedCode, which has the count [N] besides.

  Raises:
    ValueError: the shapes do not fit, S is not in [1, K], an option is unknown
      or does not go with another.
    TypeError: signals or dictionary are complex.
  """
  signals, dictionary = jnp.asarray(signals), jnp.asarray(dictionary)
  options = Options(sparsity, selection, precision, rescore, positive)
  _check(signals, dictionary, options, gram, residual_norm, limit)
  if residual_norm is not None:
    residual_norm = jnp.asarray(residual_norm, jnp.float32)
    residual_norm = jnp.broadcast_to(residual_norm, signals.shape[:1])
  arrays = lax.stop_gradient((signals, dictionary, gram, residual_norm, limit))
  code = CountedCode(*_run(options, *arrays))
  if residual_norm is None:
    code = SparseCode(code.atoms, code.coefficients)
  return with_fit_gradient(code, signals, dictionary)


def batch_omp_path(
  signals: Array, dictionary: Array, sparsity: int, *, selection: str = 'omp'
) -> tuple[Array, Array]:
  """Codes like `batch_omp`, and returns the coefficients after every step.

  Its own gradient is of no use: stop those of both arrays. The code after all
  steps, with `coefficients[:, -1]`, gets one from `with_fit_gradient`.

  Returns:
    atoms int32 [N, S], and coefficients float32 [N, S, S]: entry [n, s] is the
    least-squares fit over the first s + 1 atoms, zero beyond them.
  """
  signals, dictionary = jnp.asarray(signals), jnp.asarray(dictionary)
  options = Options(sparsity, selection, path=True)
  _check(signals, dictionary, options)
  result = _run(options, signals, dictionary)
  return result.atoms, result.coefficients


def _check(
  signals, dictionary, options, gram=None, residual_norm=None, limit=None
) -> None:
  check_real(signals, dictionary)
  each = residual_norm is not None and jnp.ndim(residual_norm)
  check_shapes(
    signals=(signals, 'N D'),
    dictionary=(dictionary, 'D K'),
    gram=(gram, 'K K'),
    limit=(limit, 'N'),
    residual_norm=(residual_norm, 'N' if each else ''),
  )
  options.check(dictionary.shape[1])


@functools.partial(jax.jit, static_argnums=0)
def _run(
  options, signals, dictionary, gram=None, residual_norm=None, limit=None
) -> Pursuit:
  return pursue(signals, dictionary, gram, residual_norm, limit, options)


@jax.custom_vjp
def with_fit_gradient(
  code: SparseCode | CountedCode, signals: Array, dictionary: Array
) -> SparseCode | CountedCode:
  """Gives a code the gradient of the least-squares fit, its support held.

  The code itself is constant: the gradient reaches signals and dictionary.

  Args:
    code: of the signals by atoms [N, S], with coefficients [N, S] of that fit.
    signals: [N, D]; dictionary: [D, K].

  Returns:
    The code as it is.
  """
  return code


def _fit_forward(code, signals, dictionary):
  return code, (code, signals, dictionary)


def _fit_backward(residuals, cotangents):
  """Differentiates c = (D_I' D_I)^-1 D_I' x, the support I held.

  For l = (D_I' D_I)^-1 c̄ the cotangents are x̄ = D_I l and
  D̄_I = (x - D_I c) l' - (D_I l) c'.
  """
  (atoms, coefficients, *_), signals, dictionary = residuals
  used = coefficients != 0
  vectors = dictionary.astype(jnp.float32).T
  weights = _solve(vectors, atoms, used, cotangents.coefficients)
  rows = vectors[atoms]  # [N, S, D]
  rows = jnp.where(used[:, :, None], rows, 0.0)
  pull = jnp.einsum('ns,nsd->nd', weights, rows, precision='highest')
  fit = jnp.einsum('ns,nsd->nd', coefficients, rows, precision='highest')
  rest = signals.astype(jnp.float32) - fit
  rest = jnp.where(jnp.any(used, 1, keepdims=True), rest, 0.0)
  by_row = weights[:, :, None] * rest[:, None]
  by_row -= coefficients[:, :, None] * pull[:, None]
  change = jnp.zeros(dictionary.shape[::-1], jnp.float32)
  change = change.at[atoms].add(by_row).T
  pull, change = pull.astype(signals.dtype), change.astype(dictionary.dtype)
  return None, pull, change


def _solve(vectors, atoms, used, targets) -> Array:
  """Solves D_I' D_I w = targets for the weights w [N, S] of atoms in use.

  By a basis of the atoms themselves: atoms that are nearly parallel are not
  told apart by their products.
  """
  (n, s), d = atoms.shape, vectors.shape[1]
  unit = exponents(jnp.max(jnp.abs(vectors), initial=0.0))
  vectors = scale(vectors, -unit)

  def add(k: Array, basis: Basis) -> Basis:
    return extend(basis, k, take(vectors, atoms[:, k]), used[:, k])[0]

  inverse = lax.fori_loop(0, s, add, empty_basis(s, n, d)).inverse
  targets = jnp.where(used, targets, 0.0).T
  along = jnp.sum(inverse * targets[None], axis=1)
  weights = jnp.sum(inverse * along[:, None], axis=0)
  return scale(scale(weights, -unit), -unit).T


with_fit_gradient.defvjp(_fit_forward, _fit_backward)


def reconstruct(code: SparseCode | CountedCode, dictionary: Array) -> Array:
  """Adds up the atoms of each code: signals float32 [N, D].

  Args:
    code: atoms [N, S] and coefficients [N, S].
    dictionary: [D, K].

  Raises:
    ValueError: the shapes do not fit.
  """
  check_shapes(
    atoms=(code.atoms, 'N S'),
    coefficients=(code.coefficients, 'N S'),
    dictionary=(dictionary, 'D K'),
  )
  rows = jnp.asarray(dictionary, jnp.float32).T
  # Slot by slot: nothing of [N, S, D] is built.
  return jnp.asarray(
    sum(
      code.coefficients[:, s, None] * rows[code.atoms[:, s]]
      for s in range(code.atoms.shape[1])
    )
  )
