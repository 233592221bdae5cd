"""Learners of dictionaries: pure functions that see one batch at a time.

  learner = online(sparsity=4)
  state = learner.init(normalize_atoms(pick_signals(key, signals, k).T))
  for signals in batches:
    state = learner.update(state, signals)
  dictionary = learner.dictionary(state)

`online` is the one to begin with; `gradient` is better where the signals form
clusters. `ksvd` needs batches of many signals.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.dictionary import (
  add_by_atom,
  forget_atoms,
  init_statistics,
  normalize_atoms,
  update_dictionary,
  update_statistics,
)
from lasers_jax.coding.numbers import (
  as_float32,
  check_shapes,
  exponents,
  finite_rows,
  scale,
)
from lasers_jax.coding.omp import SparseCode, batch_omp, reconstruct
from lasers_jax.coding.pursuit import Options
from lasers_jax.coding.revival import revive_atoms

_TINY = float(jnp.finfo(jnp.float32).tiny)


class LearnerState(NamedTuple):
  """Holds the state of a learner: arrays alone, which any checkpoint stores."""

  dictionary: Array  # [D, K], unit-norm columns
  memory: Any  # what the learner keeps of past signals
  use: Array  # [K], codes with the atom since the last look for dead ones
  steps: Array  # int32, updates so far
  key: Array  # of the draws of a revival
  exponent: Array  # int32, the memory is of signals in units of 2^exponent


class Learner(NamedTuple):
  """Learns a dictionary by two pure functions; a third reads it.

  `init(dictionary [D, K], key=None)` starts from atoms of any length;
  `update(state, signals [N, D])` is jitted, requires no more than one batch in
  memory, and gives the same for signals that a mesh splits along N. A signal
  with an entry that is not finite counts as zero. `dictionary(state)` is
  [D, K], with columns of norm 1.
  """

  init: Callable[..., LearnerState]
  update: Callable[[LearnerState, Array], LearnerState]
  dictionary: Callable[[LearnerState], Array]


class Revive(NamedTuple):
  """Says when atoms that are dead, or twins of others, are replaced."""

  every: float = 50.0  # uses of a mean atom from one look to the next
  below: float = 0.2  # an atom is dead below this fraction of the mean use
  limit: int = 16  # replacements at one look, at most
  above: float = 0.999  # two atoms are twins above this |inner product|


REVIVE = Revive()


class _Rule(NamedTuple):
  """The part in which a learner differs from others."""

  start: Callable[[int, int], Any]  # (D, K) -> memory
  # (state, signals, code, exponent) -> dictionary, memory: signals and code are
  # in units of 2^exponent.
  step: Callable[..., tuple[Array, Any]]
  forget: Callable[[Any, Array], Any]  # (memory, revived [K]) -> memory


@functools.cache
def online(
  sparsity: int,
  forgetting: float = 0.9,
  growth: float = 0.05,
  selection: str = 'omp',
  block: int = 32,
  revive: Revive | None = REVIVE,
) -> Learner:
  """Learns online from scatter statistics (Mairal et al., ICML 2009).

  An update codes the batch, fades the statistics of the past, adds those of
  the batch, and moves all atoms in one pass of coordinate descent.

  Args:
    sparsity: S, atoms of a code.
    forgetting: what the first batches keep of the statistics of those before,
      in [0, 1]. 1 forgets nothing; 0.98 was best without growth.
    growth: the statistics reach back over 1 / (1 - forgetting) batches at
      first, and over `growth` more after each batch. 0 is for signals that
      drift.
    selection: of atoms, see `batch_omp`.
    block: atoms that move at once, see `update_dictionary`.
    revive: None never replaces an atom.
  """

  def step(state: LearnerState, signals: Array, code: SparseCode, exponent):
    state, signals, code = _in_one_unit(state, signals, code, exponent)
    # The past of 1 / fading batches grows by `growth` batches a batch.
    fading = (1 - forgetting) / (1 + (1 - forgetting) * growth * state.steps)
    memory = update_statistics(state.memory, signals, code, 1 - fading)
    return update_dictionary(state.dictionary, memory, block), memory

  rule = _Rule(init_statistics, step, forget_atoms)
  return _learner(rule, sparsity, selection, revive)


@functools.cache
def ksvd(
  sparsity: int, selection: str = 'omp', revive: Revive | None = REVIVE
) -> Learner:
  """Learns by approximate K-SVD: each update is one sweep over the atoms.

  It uses the last batch alone, so give it many signals at once, best all of
  them at every update: 50 uses of an atom are few. Takes O(N D K) time.

  Args:
    sparsity: S, atoms of a code.
    selection: of atoms, see `batch_omp`.
    revive: None never replaces an atom.
  """

  def step(state: LearnerState, signals: Array, code: SparseCode, exponent):
    del exponent  # the same at every scale
    dictionary, _ = ksvd_sweep(state.dictionary, signals, code)
    return dictionary, ()

  rule = _Rule(lambda d, k: (), step, lambda memory, revived: memory)
  return _learner(rule, sparsity, selection, revive)


@jax.jit
def ksvd_sweep(
  dictionary: Array, signals: Array, code: SparseCode
) -> tuple[Array, SparseCode]:
  """Fits each atom in turn, and its coefficients, to the others' residual.

  A power step in place of the singular value decomposition of Aharon, Elad and
  Bruckstein 2006 (Rubinstein, Zibulevsky and Elad 2008, algorithm 5). Supports
  do not change; later atoms use the new coefficients of earlier ones. An atom
  that no code uses does not change.

  Args:
    dictionary: [D, K], unit-norm columns.
    signals: [N, D]; code: atoms [N, S], coefficients [N, S].

  Returns:
    The dictionary [D, K], unit-norm columns, and the code.
  """

  def fit_atom(j: Array, carry: tuple[Array, Array, Array]):
    rows, coefficients, residuals = carry
    mine = (code.atoms == j) & (coefficients != 0)
    weights = jnp.sum(jnp.where(mine, coefficients, 0.0), axis=1)  # [N]
    old = rows[j]
    # Scaled, so that no square of what follows leaves float32.
    relative = weights / jnp.maximum(jnp.max(jnp.abs(weights)), _TINY)
    new = relative @ residuals + jnp.vdot(relative, weights) * old
    squares = jnp.sum(new**2)
    new = jnp.where(squares > _TINY, new * lax.rsqrt(squares + _TINY), old)
    fitted = residuals @ new + weights * jnp.vdot(old, new)
    fitted = jnp.where(jnp.any(mine, axis=1), fitted, 0.0)
    residuals += weights[:, None] * old[None] - fitted[:, None] * new[None]
    coefficients = jnp.where(mine, fitted[:, None], coefficients)
    return rows.at[j].set(new), coefficients, residuals

  check_shapes(
    dictionary=(dictionary, 'D K'),
    signals=(signals, 'N D'),
    atoms=(code.atoms, 'N S'),
    coefficients=(code.coefficients, 'N S'),
  )
  # Near 1, where the squares of what follows stay within float32.
  exponent = exponents(jnp.max(jnp.abs(signals), initial=0.0))
  near_one = (scale(x, -exponent) for x in (signals, code.coefficients))
  signals, code = next(near_one), SparseCode(code.atoms, next(near_one))
  residuals = signals - reconstruct(code, dictionary)
  start = dictionary.T, code.coefficients, residuals
  rows, values, _ = lax.fori_loop(0, dictionary.shape[1], fit_atom, start)
  return rows.T, SparseCode(code.atoms, scale(values, exponent))


class AdamMoments(NamedTuple):
  """Holds moving averages of the gradient and its square, [D, K] each."""

  mean: Array
  square: Array


@functools.cache
def gradient(
  sparsity: int,
  learning_rate: float = 3e-3,
  selection: str = 'omp',
  revive: Revive | None = REVIVE,
) -> Learner:
  """Learns by Adam on the sphere (Kingma and Ba, ICLR 2015).

  The gradient is that of the relative squared error of a batch at fixed codes,
  within the plane that touches the sphere at the atom; moments fade by 0.9 and
  0.99 a batch. Better than `online` where signals form clusters.

  Args:
    sparsity: S, atoms of a code.
    learning_rate: about the angle, in radians, of an update, over sqrt(D).
    selection: of atoms, see `batch_omp`.
    revive: None never replaces an atom.
  """

  def start(d: int, k: int) -> AdamMoments:
    zeros = jnp.zeros((d, k), jnp.float32)
    return AdamMoments(zeros, zeros)

  def step(state: LearnerState, signals: Array, code: SparseCode, exponent):
    del exponent  # the same at every scale
    slope = _tangent_gradient(state.dictionary, signals, code)
    mean = 0.9 * state.memory.mean + 0.1 * slope
    square = 0.99 * state.memory.square + 0.01 * slope**2
    t = state.steps + 1.0
    size = jnp.sqrt(square / (1 - 0.99**t)) + 1e-8
    moved = state.dictionary - learning_rate * mean / (1 - 0.9**t) / size
    return normalize_atoms(moved), AdamMoments(mean, square)

  def forget(memory: AdamMoments, revived: Array) -> AdamMoments:
    return jax.tree.map(lambda x: jnp.where(revived[None], 0.0, x), memory)

  return _learner(_Rule(start, step, forget), sparsity, selection, revive)


def _tangent_gradient(dictionary: Array, signals: Array, code: SparseCode):
  """The gradient [D, K] of |x - D c|² / (2 |x|²), tangent to the sphere."""
  residuals = signals - reconstruct(code, dictionary)
  energy = jnp.maximum(jnp.sum(signals**2), _TINY)
  rows = jnp.zeros_like(dictionary.T)
  slope = add_by_atom(rows, code, -residuals / energy).T
  radial = jnp.sum(slope * dictionary, axis=0, keepdims=True)
  return slope - radial * dictionary


def _learner(
  rule: _Rule, sparsity: int, selection: str, revive: Revive | None
) -> Learner:
  """Builds the learner of a rule: coding and revival are the same for all."""

  def init(dictionary: Array, key: Array | None = None) -> LearnerState:
    atoms = as_float32(dictionary)
    check_shapes(dictionary=(atoms, 'D K'))
    d, k = atoms.shape
    Options(sparsity, selection).check(k)
    return LearnerState(
      # A copy, since what is given is the caller's to overwrite.
      dictionary=normalize_atoms(finite_rows(atoms.T).T),
      memory=rule.start(d, k),
      use=jnp.zeros(k, jnp.float32),
      steps=jnp.int32(0),
      key=jax.random.key(0) if key is None else key,
      exponent=jnp.int32(-126),
    )

  @jax.jit
  def update(state: LearnerState, signals: Array) -> LearnerState:
    check_shapes(dictionary=(state.dictionary, 'D K'), signals=(signals, 'N D'))
    signals = finite_rows(as_float32(signals))
    # Near 1, which changes no dictionary: squares stay within float32.
    exponent = exponents(jnp.max(jnp.abs(signals), initial=0.0))
    signals = scale(signals, -exponent)
    found = batch_omp(signals, state.dictionary, sparsity, selection=selection)
    code = SparseCode(found.atoms, found.coefficients)
    used = (code.coefficients != 0).astype(jnp.float32)
    state = state._replace(use=state.use.at[code.atoms].add(used))
    if revive is not None:
      state, revived = _replace_atoms(revive, state, signals, code)
      # What the codes said of an atom is not true of the one in its place.
      coefficients = jnp.where(revived[code.atoms], 0.0, code.coefficients)
      code = SparseCode(code.atoms, coefficients)
      state = state._replace(memory=rule.forget(state.memory, revived))
    dictionary, memory = rule.step(state, signals, code, exponent)
    return state._replace(
      dictionary=dictionary,
      memory=memory,
      steps=state.steps + 1,
      exponent=jnp.maximum(state.exponent, exponent),
    )

  return Learner(init, update, lambda state: state.dictionary)


def _replace_atoms(
  revive: Revive, state: LearnerState, signals: Array, code: SparseCode
) -> tuple[LearnerState, Array]:
  """Looks for dead atoms and twins when it is time; says which are new."""

  def look(state: LearnerState):
    key, draw = jax.random.split(state.key)
    residuals = signals - reconstruct(code, state.dictionary)
    dictionary, revived = revive_atoms(
      draw, state.dictionary, state.use, residuals, *revive[1:]
    )
    use = jnp.zeros_like(state.use)
    return state._replace(dictionary=dictionary, use=use, key=key), revived

  def wait(state: LearnerState):
    return state, jnp.zeros(state.use.shape, bool)

  # The memory stays outside, since a branch would copy it.
  due = jnp.mean(state.use) >= revive.every
  small, revived = lax.cond(due, look, wait, state._replace(memory=None))
  return small._replace(memory=state.memory), revived


def _in_one_unit(state, signals, code, exponent):
  """Brings statistics of the past, and a batch, to the larger unit of both."""
  unit = jnp.maximum(state.exponent, exponent)
  by = state.exponent - unit
  memory = jax.tree.map(lambda x: scale(scale(x, by), by), state.memory)
  signals, coefficients = (
    scale(x, exponent - unit) for x in (signals, code.coefficients)
  )
  code = SparseCode(code.atoms, coefficients)
  return state._replace(memory=memory), signals, code
