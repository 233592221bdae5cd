"""The pursuit behind `batch_omp`: one step at a time, a block of signals.

In this file the small arrays have the signals last, [S, b] or [S, S, b], and
`chosen` holds the atoms that a pursuit has taken: see `Chosen`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.nonnegative import NonnegativeFit
from lasers_jax.coding.numbers import (
  as_float32,
  exponents,
  finite_rows,
  scale,
)
from lasers_jax.coding.precise import (
  CORRELATION_FLOOR,
  GRAM_FLOOR,
  ols_scores,
  pursue_precisely,
)
from lasers_jax.coding.search import (
  in_large_blocks,
  in_small_blocks,
  largest,
  largest_two,
  matmul,
  take,
)

# Rows of a Gram matrix that are a multiple of this many numbers apart, a page,
# fall into the same few lines of a CPU's cache; one more line keeps them apart.
_PAGE, _LINE = 1024, 16
# Beyond this norm of the inverse of the chosen atoms' Cholesky factor, squared,
# rounding in their products shows in the fit.
_ILL = 1e3

SELECTIONS = ('omp', 'ols')
PRECISIONS = ('float32', 'bfloat16')


class Options(NamedTuple):
  """Holds the settings of a compiled pursuit; see `batch_omp`."""

  sparsity: int
  selection: str = 'omp'
  precision: str = 'float32'
  rescore: bool = True
  positive: bool = False
  path: bool = False  # keep the coefficients of every step

  def check(self, k: int) -> None:
    if not 1 <= self.sparsity <= k:
      raise ValueError(
        f'the sparsity S must be from 1 to K = {k}, got {self.sparsity}'
      )
    if self.selection not in SELECTIONS:
      raise ValueError(
        f'selection must be one of {SELECTIONS}, got {self.selection!r}'
      )
    if self.precision not in PRECISIONS:
      raise ValueError(
        f'precision must be one of {PRECISIONS}, got {self.precision!r}'
      )
    if self.selection == 'ols' and self.positive:
      raise ValueError("positive coefficients go with selection='omp' only")
    if self.selection == 'ols' and self.precision == 'bfloat16':
      raise ValueError("precision='bfloat16' goes with selection='omp' only")


class Pursuit(NamedTuple):
  """Holds the result of a pursuit."""

  atoms: Array  # int32 [N, S]
  coefficients: Array  # float32 [N, S], or [N, S, S] after each step
  count: Array  # int32 [N], atoms in use


class Chosen(NamedTuple):
  """Holds the first k atoms of each pursuit.

  `inverse` is the inverse of the Cholesky factor of the atoms' Gram matrix,
  which grows by a row a step: row j holds the weights of the atoms in the j-th
  vector of their orthonormal basis. So no triangular system is ever solved.
  """

  atoms: Array  # int32 [k, b]
  coefficients: Array  # [k, b]
  inverse: Array  # [k, k, b]


def pursue(signals, dictionary, gram, residual_norm, limit, options) -> Pursuit:
  """Codes signals [N, D] over a dictionary [D, K]; see `batch_omp`.

  Args:
    signals: [N, D]; dictionary: [D, K]; gram: [K, K] or None.
    residual_norm: float32 [N] or None; limit: int [N] or None.
    options: of the pursuit.
  """
  dictionary = as_float32(dictionary)
  known = jnp.all(jnp.isfinite(dictionary), axis=0, keepdims=True)
  dictionary = jnp.where(known, dictionary, 0.0)
  # Near 1 by powers of two, which rounds nothing: squares stay in float32.
  unit = exponents(jnp.max(jnp.abs(dictionary), initial=0.0))
  dictionary = scale(dictionary, -unit)
  if options.precision == 'bfloat16':
    gram = None
  elif gram is not None:
    gram = scale(scale(as_float32(gram), -unit), -unit)
    gram = jnp.where(known & known.T & jnp.isfinite(gram), gram, 0.0)
  k = dictionary.shape[1]

  def code(gram: Array | None, block) -> Pursuit:
    x, norm, limit = block
    return _pursue_block(x, norm, limit, dictionary, unit, gram, options)

  def on_cpu(sites) -> Pursuit:
    rows = gram
    if rows is None and _pays(k, options):
      rows = _gram_matrix(dictionary)
    return in_small_blocks(functools.partial(code, rows), sites, k)

  def elsewhere(sites) -> Pursuit:
    return in_large_blocks(functools.partial(code, gram), sites, k)

  sites = (as_float32(signals), residual_norm, limit)
  return lax.platform_dependent(sites, cpu=on_cpu, default=elsewhere)


def _pays(k: int, options: Options) -> bool:
  """Whether rows of the Gram matrix are faster than products of residuals.

  On a CPU the rows cost less than the S - 1 products of the residuals with the
  dictionary, once a usual batch pays for the matrix. The number of signals is
  no part of the rule, so that it changes no code. An accelerator, and
  bfloat16, are made for products.
  """
  exact = options.precision == 'float32'
  return exact and k <= 512 * (options.sparsity - 1)


def _gram_matrix(dictionary: Array) -> Array:
  """Returns D'D: [K, K], or with a line of zeros after each row."""
  padding = 0 if dictionary.shape[1] % _PAGE else _LINE
  padded = jnp.pad(dictionary, ((0, 0), (0, padding)))
  return matmul(dictionary.T, padded)


def _pursue_block(
  signals, residual_norm, limit, dictionary, unit, gram, options
):
  """Runs the pursuits of signals [b, D]; 2^unit is that of the dictionary."""
  signals, exponent, norm = _normalize(signals)
  if residual_norm is not None:
    residual_norm = scale(residual_norm, -exponent)
  sites = signals, norm, residual_norm, limit
  *found, good = _pursue_quickly(*sites, dictionary, gram, options)

  def mend(*found):
    again = pursue_precisely(*sites, dictionary, found[0], good, options)
    mended = functools.partial(jnp.where, good < options.sparsity)
    return jax.tree.map(mended, again, found)

  ill = jnp.any(good < options.sparsity)
  atoms, values, count = lax.cond(ill, mend, lambda *x: x, *found)
  atoms = lax.cond(
    jnp.all(count == len(atoms)), lambda a, _: a, _fill, atoms, count
  )
  exponent = (exponent - unit).reshape([1] * (values.ndim - 1) + [-1])
  values = scale(values, exponent)
  # Where a coefficient is beyond float32, the largest one is nearest.
  most = float(jnp.finfo(jnp.float32).max)
  values = jnp.clip(values, -most, most)
  return Pursuit(atoms.T, jnp.moveaxis(values, -1, 0), count)


def _pursue_quickly(
  signals, norm, residual_norm, limit, dictionary, gram, options
):
  """Runs the pursuits by products of atoms and signals.

  Returns:
    What `pursue_precisely` returns, and int32 [b]: the steps before the first
    in which rounding may count, or S.
  """
  if gram is None:
    form = _Residual(signals, dictionary, options)
  else:
    form = _Gram(signals, dictionary, gram, options)
  s, b = options.sparsity, signals.shape[0]
  # Rows are written in place: XLA:CPU would otherwise compute the small arrays
  # again inside each of their uses. A pursuit that has stopped goes on with
  # weights of zero.
  atoms = jnp.zeros((s, b), jnp.int32)
  coefficients, basis, squares = jnp.zeros((3, s, b), jnp.float32)
  inverse = jnp.zeros((s, s, b), jnp.float32)
  fit = NonnegativeFit(s, b)
  going, good = norm > 0, jnp.full(b, s, jnp.int32)
  count, path = jnp.zeros(b, jnp.int32), []
  for k in range(s):
    chosen = Chosen(atoms[:k], coefficients[:k], inverse[:k, :k])
    atom = form.choose(chosen)
    start, products, square = form.inspect(atom, chosen)
    best = start - sum(coefficients[j] * products[j] for j in range(k))
    along = sum(inverse[:k, j] * products[None, j] for j in range(k))
    basis = basis.at[:k].set(along)
    squares = squares.at[k].set(square)
    squared_sine = square - sum(basis[j] ** 2 for j in range(k))
    gain = best if options.positive else jnp.abs(best)
    going &= gain > CORRELATION_FLOOR * norm * jnp.sqrt(square)
    if residual_norm is not None:
      going &= _norm(form.residual(chosen)) > residual_norm
    if limit is not None:
      going &= k < limit
    near = squared_sine <= GRAM_FLOOR * square
    ill, going = going & near, going & ~near
    count += going
    atoms = atoms.at[k].set(atom)
    length = jnp.where(going, lax.rsqrt(jnp.where(going, squared_sine, 1.0)), 0)
    row = sum(basis[None, j] * inverse[j, :k] for j in range(k))
    inverse = inverse.at[k, :k].set(-length[None] * row).at[k, k].set(length)
    own = inverse[k, : k + 1]
    ill |= jnp.sum(own**2 * squares[: k + 1], axis=0) > _ILL
    good = jnp.where(ill, jnp.minimum(good, k), good)
    if options.positive:
      fit.add(k, going, start, products, square)
      coefficients = coefficients.at[: k + 1].set(fit.coefficients(k + 1))
    else:
      step = (best * length)[None] * own
      coefficients = coefficients.at[: k + 1].add(step)
    path.append(coefficients)
  return atoms, jnp.stack(path) if options.path else path[-1], count, good


class _Gram:
  """Correlations from rows of the Gram matrix: D'r = D'x - sum c_j G[i_j]."""

  def __init__(self, signals, dictionary, gram, options):
    self._signals, self._rows = signals, dictionary.T
    self._gram, self._options = gram, options
    self._start = matmul(signals, dictionary)

  def choose(self, chosen: Chosen) -> Array:
    """Returns the next atom [b]."""
    k, scores = self._start.shape[1], self._start
    rows = [take(self._gram, atom)[:, :k] for atom in chosen.atoms]
    for weight, row in zip(chosen.coefficients, rows, strict=True):
      scores -= weight[:, None] * row
    if self._options.positive:
      return largest(scores)
    if self._options.selection == 'omp' or not rows:
      return largest(_magnitude(scores))
    # The squared norm of each atom beyond the span of the chosen.
    squares = rest = jnp.diagonal(self._gram)[None]
    for p in range(len(rows)):
      rest -= _weighted(chosen.inverse[p, : p + 1], rows[: p + 1]) ** 2
    return largest(ols_scores(scores, rest, squares))

  def inspect(self, atom: Array, chosen: Chosen):
    """Returns <d, x> [b], <d, d_j> for the chosen [k, b], and <d, d> [b]."""
    b, k = self._start.shape
    sites = jnp.arange(b, dtype=jnp.int32)
    gram, width = self._gram.reshape(-1), self._gram.shape[1]
    start = take(self._start.reshape(-1), sites * k + atom)
    products = take(gram, chosen.atoms * width + atom[None])
    return start, products, take(gram, atom * (width + 1))

  def residual(self, chosen: Chosen) -> Array:
    """Returns x - D_I c: [b, D]."""
    rows = [take(self._rows, atom) for atom in chosen.atoms]
    return self._signals - _weighted(chosen.coefficients, rows)


class _Residual:
  """Correlations from residuals: D'(x - D_I c). No array is [K, K].

  The rows of the chosen atoms are kept: where a mesh splits K, each comes from
  another device.
  """

  def __init__(self, signals, dictionary, options):
    self._signals, self._dictionary = signals, dictionary
    self._rows, self._options = dictionary.T, options
    self._chosen = []  # [b, D] each
    # As in _Gram, one vector of the basis after the other.
    self._squares = self._rest = jnp.sum(dictionary**2, axis=0, keepdims=True)

  def choose(self, chosen: Chosen) -> Array:
    residual = self.residual(chosen)
    if self._options.precision == 'bfloat16':
      atom, row = self._choose_roughly(residual)
    else:
      atom = self._choose_exactly(residual, chosen)
      row = take(self._rows, atom)
    self._chosen.append(row)
    return atom

  def _choose_exactly(self, residual: Array, chosen: Chosen) -> Array:
    scores = matmul(residual, self._dictionary)
    if self._options.positive:
      return largest(scores)
    if self._options.selection == 'omp' or not self._chosen:
      return largest(_magnitude(scores))
    last = _weighted(chosen.inverse[-1], self._chosen)
    self._rest -= matmul(last, self._dictionary) ** 2
    return largest(ols_scores(scores, self._rest, self._squares))

  def _choose_roughly(self, residual: Array) -> tuple[Array, Array]:
    """Chooses by products in bfloat16, the best two compared in float32."""
    scores = jnp.dot(
      residual.astype(jnp.bfloat16),
      self._dictionary.astype(jnp.bfloat16),
      preferred_element_type=jnp.float32,
    )
    size = jax.nn.relu if self._options.positive else _magnitude
    if not self._options.rescore:
      atom = largest(size(scores))
      return atom, take(self._rows, atom)
    first, second = largest_two(size(scores))
    rows = take(self._rows, first), take(self._rows, second)
    one, two = (size(jnp.sum(row * residual, axis=1)) for row in rows)
    second_wins = (two > one) | ((two == one) & (second < first))
    row = jnp.where(second_wins[:, None], rows[1], rows[0])
    return jnp.where(second_wins, second, first), row

  def inspect(self, atom: Array, chosen: Chosen):
    *others, row = self._chosen
    start = jnp.sum(row * self._signals, axis=1)
    products = jnp.zeros(chosen.atoms.shape, jnp.float32)
    for j, other in enumerate(others):
      products = products.at[j].set(jnp.sum(row * other, axis=1))
    return start, products, jnp.sum(row**2, axis=1)

  def residual(self, chosen: Chosen) -> Array:
    rows = self._chosen[: len(chosen.atoms)]
    return self._signals - _weighted(chosen.coefficients, rows)


def _magnitude(scores: Array) -> Array:
  """Returns |scores|, by a selection.

  XLA:CPU would fuse `abs`, and the scores with it, into the search, slowly.
  """
  return jnp.where(scores < 0, -scores, scores)


def _norm(x: Array) -> Array:
  return jnp.sqrt(jnp.sum(x**2, axis=1))


def _weighted(weights: Array, rows: list[Array]) -> Array:
  """Sums rows [b, K], each by a weight [b]."""
  pairs = zip(weights, rows, strict=True)
  terms = (weight[:, None] * row for weight, row in pairs)
  return jnp.asarray(sum(terms, start=0.0))


def _normalize(signals: Array) -> tuple[Array, Array, Array]:
  """Brings signals near 1 by powers of two, which rounds nothing.

  Without it the squares of signals below 1e-19 or above 1e19 leave float32.

  Returns:
    signals [b, D] with entries up to 1, the exponents int32 [b] that undo the
    scaling, and the norms [b] of the scaled signals.
  """
  signals = finite_rows(signals)
  exponent = exponents(jnp.max(jnp.abs(signals), axis=1))
  signals = scale(signals, -exponent[:, None])
  return signals, exponent, _norm(signals)


def _fill(atoms: Array, count: Array) -> Array:
  """Puts the lowest atoms not in use into slots [S, b] from `count` on."""
  candidates = jnp.arange(atoms.shape[0], dtype=jnp.int32)
  for k in range(atoms.shape[0]):
    taken = atoms[:k, None] == candidates[None, : k + 1, None]
    free = jnp.argmin(jnp.any(taken, axis=0), axis=0).astype(jnp.int32)
    atoms = atoms.at[k].set(jnp.where(k < count, atoms[k], free))
  return atoms
