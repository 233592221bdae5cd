"""Dead atoms and codes come back to life where the coding is worst."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


class Revival(NamedTuple):
  """Up to M replacements."""

  which: Array  # int32 [M], the least used atoms
  dead: Array  # bool [M], whether that atom is to be replaced
  rows: Array  # int32 [M], the signals to replace them by


def choose_revivals(
  key: Array, use: Array, errors: Array, below: float, limit: int
) -> Revival:
  """Pairs atoms that are hardly used with signals that are badly coded.

  Signals are drawn without replacement with probability proportional to their
  squared error, as k-means++ seeds its centres (Arthur & Vassilvitskii 2007),
  by the Gumbel top-k trick.

  Args:
    key: of the draw.
    use: [K], how often each atom is used (any unit).
    errors: [N], the squared coding error of each signal.
    below: an atom is dead below this share of the mean use.
    limit: M, replacements at most.
  """
  m = min(limit, use.shape[0], errors.shape[0])
  negative_use, which = lax.top_k(-use, m)
  noise = jax.random.gumbel(key, errors.shape)
  _, rows = lax.top_k(jnp.log(errors + 1e-30) + noise, m)
  # A signal without error has nothing to give.
  dead = (-negative_use < below * jnp.mean(use)) & (errors[rows] > 0)
  return Revival(which, dead, rows)
