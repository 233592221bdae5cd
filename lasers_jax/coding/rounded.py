"""Matching pursuit whose coefficients are rounded as they are found.

Orthogonal matching pursuit fits all coefficients before they are rounded, so
nothing makes up for the rounding. Here each step takes the atom and the level
of minimum error, and the next steps code the residual, rounding included: the
closed loop of predictive coding, as in R. Neff and A. Zakhor, "Very low
bit-rate video coding based on matching pursuits", IEEE Trans. CSVT 7, 1997,
with the rounding inside the choice of the atom.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.numbers import as_float32, check_shapes, finite_rows
from lasers_jax.coding.pursuit import Options
from lasers_jax.coding.scalar import nearest_level
from lasers_jax.coding.search import in_blocks, largest, matmul, take

_MOST = float(jnp.finfo(jnp.float32).max) / 2


class RoundedCode(NamedTuple):
  """Holds a code of S atoms a site, in the order of the pursuit."""

  atoms: Array  # int32 [N, S], each in [0, K), distinct within a site
  coefficients: Array  # float32 [N, S], what was rounded
  bins: Array  # int32 [N, S], each in [0, L)


@functools.partial(jax.jit, static_argnames='sparsity')
def rounded_pursuit(
  signals: Array, dictionary: Array, sizes: Array, levels: Array, sparsity: int
) -> RoundedCode:
  """Codes each signal with S atoms, each at one of the levels of its atom.

  A step takes the atom and level of minimum squared error. Every signal gets S
  atoms, even if the last of them raise the error. The lowest index wins a tie,
  and so does the lower level. There is no gradient.

  Args:
    signals: float32 [N, D]. One with an entry that is not finite is coded as
      if it were zero.
    dictionary: float32 [D, K], with unit-norm columns.
    sizes: float32 [K], positive: the unit of the levels of each atom.
    levels: float32 [L], ascending. Meant for few: a step compares K·L values.
    sparsity: S, from 1 to K.

  Raises:
    ValueError: the shapes do not fit, or S is not in [1, K].
  """
  check_shapes(
    signals=(signals, 'N D'),
    dictionary=(dictionary, 'D K'),
    sizes=(sizes, 'K'),
    levels=(levels, 'L'),
  )
  Options(sparsity).check(dictionary.shape[1])
  signals, dictionary, sizes, levels = (
    as_float32(lax.stop_gradient(x))
    for x in (signals, dictionary, sizes, levels)
  )
  signals = finite_rows(signals)
  values = levels[:, None] * sizes[None]

  def code(residuals: Array) -> RoundedCode:
    columns = jnp.arange(dictionary.shape[1], dtype=jnp.int32)[None]
    steps = []
    for _ in range(sparsity):
      # Twice that of a signal near the end of float32 may be infinite, which
      # times a level of zero is no number.
      products = jnp.clip(matmul(residuals, dictionary), -_MOST, _MOST)
      # How much the squared error falls.
      gains = functools.reduce(
        jnp.maximum, (v[None] * (2 * products - v[None]) for v in values)
      )
      for atom, _, _ in steps:
        gains = jnp.where(columns == atom[:, None], -jnp.inf, gains)
      atom = largest(gains)
      row = take(dictionary.T, atom)
      coefficient = jnp.clip(jnp.sum(row * residuals, axis=1), -_MOST, _MOST)
      bins = nearest_level(coefficient / take(sizes, atom), levels)
      value = take(levels, bins) * take(sizes, atom)
      residuals -= value[:, None] * row
      steps.append((atom, coefficient, bins))
    slots = zip(*steps, strict=True)
    return RoundedCode(*(jnp.stack(x, axis=1) for x in slots))

  return in_blocks(code, signals, dictionary.shape[1])
