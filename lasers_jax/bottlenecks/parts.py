"""Codes taken apart: what each atom or code of a site adds to its latent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array


class Parts(NamedTuple):
  """Holds codes as sums: quantized = rest + Σ amounts · rows[indices].

  The parts of a site come as a shorter code would keep them: level by level, or
  the strongest first. Arrays are of JAX, or of NumPy outside of modules.

  Attributes:
    indices: int32 [..., M], rows that a site adds.
    amounts: float32 [..., M], coefficients of these; 1 of a code.
    rows: float32 [A, D], what may be added: atoms, codes or channels.
    rest: float32 [D], what a site is without any part.
    names: a word and a count for each group of rows, in their order, such as
      ('atom', A).
  """

  indices: Any
  amounts: Any
  rows: Any
  rest: Any
  names: tuple[tuple[str, int], ...]

  def among(self, start: int, width: int) -> 'Parts':
    """Returns the parts of wider latents, with zeros around these channels."""
    around = start, width - start - self.rest.size
    return self._replace(
      rows=jnp.pad(self.rows, ((0, 0), around)),
      rest=jnp.pad(self.rest, around),
    )


def strongest_first(
  name: str, indices: Array, amounts: Array, rows: Array, rest: Array
) -> Parts:
  """Returns parts of one kind of rows, ordered by the lengths that they add."""
  lengths = jnp.abs(amounts) * jnp.linalg.norm(rows, axis=1)[indices]
  order = jnp.argsort(-lengths, axis=-1)
  indices, amounts = (
    jnp.take_along_axis(x, order, axis=-1) for x in (indices, amounts)
  )
  return Parts(indices, amounts, rows, rest, ((name, len(rows)),))


def channels(name: str, amounts: Array, rows: Array, rest: Array) -> Parts:
  """Returns the parts of codes with an amount [..., A] of every row."""
  every = jnp.arange(len(rows), dtype=jnp.int32)
  indices = jnp.broadcast_to(every, amounts.shape)
  return strongest_first(name, indices, amounts, rows, rest)


def joined(name: str, each: Sequence[Parts]) -> Parts:
  """Returns the parts of a sum of codes, such as those of levels.

  Args:
    name: of one of them; with its number it goes before the names of its rows.
  """
  starts = [sum(len(x.rows) for x in each[:i]) for i in range(len(each))]
  indices = [x.indices + n for x, n in zip(each, starts, strict=True)]
  return Parts(
    jnp.concatenate(indices, axis=-1),
    jnp.concatenate([x.amounts for x in each], axis=-1),
    jnp.concatenate([x.rows for x in each]),
    jnp.sum(jnp.stack([x.rest for x in each]), axis=0),
    tuple(
      (f'{name} {i + 1}, {word}', count)
      for i, x in enumerate(each)
      for word, count in x.names
    ),
  )
