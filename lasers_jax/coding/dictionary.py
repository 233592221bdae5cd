"""Dictionaries: where they start, and how they learn online.

J. Mairal, F. Bach, J. Ponce and G. Sapiro, "Online dictionary learning for
sparse coding", ICML 2009.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.omp import SparseCode


def normalize_atoms(dictionary: Array) -> Array:
  """Scales the columns of a dictionary [D, K] to norm 1; zero stays zero."""
  squares = jnp.sum(dictionary**2, axis=0, keepdims=True)
  return dictionary * lax.rsqrt(jnp.maximum(squares, 1e-24))


def random_dictionary(key: Array, shape: tuple[int, int]) -> Array:
  """Draws a dictionary [D, K] of atoms uniform on the sphere."""
  return normalize_atoms(jax.random.normal(key, shape))


def pick_signals(key: Array, signals: Array, k: int) -> Array:
  """Draws K of the signals [N, D], with a little noise against equal ones.

  Where N < K, signals come more than once and the noise tells them apart.

  Returns:
    [K, D], float32.
  """
  which, noise = jax.random.split(key)
  n, d = signals.shape
  rows = jax.random.choice(which, n, (k,), replace=n < k)
  spread = jnp.sqrt(jnp.mean(signals**2)) + 1e-6
  return signals[rows] + 1e-2 * spread * jax.random.normal(noise, (k, d))


class OnlineStatistics(NamedTuple):
  """What online learning remembers of the past (Mairal et al. 2009, eq. 11)."""

  codes: Array  # A [K, K], the mean of the outer products of codes
  products: Array  # B [D, K], the mean of the products of signals and codes


def init_statistics(d: int, k: int) -> OnlineStatistics:
  """Returns the statistics of no signal at all."""
  return OnlineStatistics(jnp.zeros((k, k)), jnp.zeros((d, k)))


@jax.jit
def update_statistics(
  statistics: OnlineStatistics,
  signals: Array,
  code: SparseCode,
  forgetting: float,
) -> OnlineStatistics:
  """Fades the past by `forgetting` and adds the mean over a batch.

  Args:
    statistics: A [K, K] and B [D, K].
    signals: [N, D]; code: atoms [N, S], coefficients [N, S].
    forgetting: in [0, 1]; 1 forgets nothing.
  """
  n, s = code.atoms.shape
  k = statistics.codes.shape[0]
  # By scatter: as a dense product of [N, K] codes it costs thirty times more.
  pairs = code.atoms[:, :, None] * k + code.atoms[:, None, :]
  values = code.coefficients[:, :, None] * code.coefficients[:, None, :]
  outer = jnp.zeros(k * k).at[pairs.reshape(-1)].add(values.reshape(-1))
  products = jnp.zeros((k, signals.shape[1]))
  for slot in range(s):
    weighted = code.coefficients[:, slot, None] * signals
    products = products.at[code.atoms[:, slot]].add(weighted)
  return OnlineStatistics(
    forgetting * statistics.codes + outer.reshape(k, k) / n,
    forgetting * statistics.products + products.T / n,
  )


@jax.jit
def update_dictionary(dictionary: Array, statistics: OnlineStatistics) -> Array:
  """Moves each atom in turn to the best one given the others.

  One pass of block-coordinate descent (Mairal et al. 2009, algorithm 2), with
  atoms on the unit sphere. An atom that no code has used stays as it is.

  Args:
    dictionary: [D, K], unit-norm columns.
    statistics: A [K, K] and B [D, K].

  Returns:
    [D, K], unit-norm columns.
  """
  energy = jnp.diagonal(statistics.codes)
  floor = 1e-6 * jnp.mean(energy)

  def update_atom(j: Array, rows: Array) -> Array:
    pull = statistics.products[:, j] - statistics.codes[j] @ rows
    atom = rows[j] + pull / jnp.maximum(energy[j], floor)
    atom = atom * lax.rsqrt(jnp.maximum(jnp.sum(atom**2), 1e-24))
    return rows.at[j].set(jnp.where(energy[j] > floor, atom, rows[j]))

  return lax.fori_loop(0, dictionary.shape[1], update_atom, dictionary.T).T
