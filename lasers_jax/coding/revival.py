"""Revival of dead atoms and codes, where the coding is worst."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.dictionary import normalize_atoms
from lasers_jax.coding.search import in_blocks, matmul


class Revival(NamedTuple):
  """Holds up to M replacements."""

  which: Array  # int32 [M], the least used atoms
  dead: Array  # bool [M], whether that atom is to be replaced
  rows: Array  # int32 [M], the signals to replace them by


def choose_revivals(
  key: Array, use: Array, errors: Array, below: float, limit: int
) -> Revival:
  """Pairs rarely used atoms with badly coded signals.

  Signals are drawn without replacement with probability proportional to their
  squared error, as k-means++ seeds its centres (Arthur & Vassilvitskii 2007),
  by the Gumbel top-k trick.

  Args:
    key: of the draw.
    use: [K], how often each atom is used (any unit).
    errors: [N], the squared coding error of each signal; one that is not
      finite is never drawn.
    below: an atom is dead below this fraction of the mean use.
    limit: M, replacements at most.
  """
  m = min(limit, use.shape[0], errors.shape[0])
  negative_use, which = lax.top_k(-use, m)
  noise = jax.random.gumbel(key, errors.shape, jnp.float32)
  errors = jnp.where(jnp.isfinite(errors), errors, 0.0)
  relative = errors / jnp.maximum(jnp.max(errors, initial=0), 1e-37)
  _, rows = lax.top_k(jnp.log(relative + 1e-30) + noise, m)
  # A signal without error has nothing to give.
  dead = (-negative_use < below * jnp.mean(use)) & (errors[rows] > 0)
  return Revival(which, dead, rows)


def find_twins(dictionary: Array, use: Array, above: float = 0.999) -> Array:
  """Finds atoms that are nearly parallel to a more used atom.

  Args:
    dictionary: [D, K], unit-norm columns.
    use: [K], how often each atom is used; of equals the first one stays.
    above: the |inner product| beyond which two atoms are twins.

  Returns:
    bool [K].
  """
  k = dictionary.shape[1]
  order = jnp.argsort(-use, stable=True)
  rank = jnp.zeros(k, jnp.int32).at[order].set(jnp.arange(k, dtype=jnp.int32))

  def best_rank(rows: Array) -> Array:
    alike = jnp.abs(matmul(rows, dictionary)) > above
    return jnp.min(jnp.where(alike, rank[None], k), axis=1)

  return in_blocks(best_rank, dictionary.T, k) < rank


def revive_atoms(
  key: Array,
  dictionary: Array,
  use: Array,
  residuals: Array,
  below: float,
  limit: int,
  above: float = 0.999,
) -> tuple[Array, Array]:
  """Replaces dead atoms and twins by residuals of badly coded signals.

  Args:
    key: of the draw of signals.
    dictionary: [D, K], unit-norm columns.
    use: [K], how often each atom is used (any unit).
    residuals: [N, D], what the codes of N signals leave.
    below: an atom is dead below this fraction of the mean use.
    limit: replacements at most.
    above: the less used of two atoms goes where their |inner product| is
      larger than this.

  Returns:
    The new dictionary [D, K], and which atoms are new: bool [K].
  """
  # Whatever its use, a twin is as good as unused.
  use = jnp.where(find_twins(dictionary, use, above), 0.0, use)
  errors = jnp.sum(residuals**2, axis=1)
  which, dead, rows = choose_revivals(key, use, errors, below, limit)
  new = normalize_atoms(residuals[rows].T)
  new = jnp.where(dead[None], new, dictionary[:, which])
  revived = jnp.zeros(use.shape, bool).at[which].set(dead)
  return dictionary.at[:, which].set(new), revived
