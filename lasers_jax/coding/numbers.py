"""Checks of arrays, which become float32, finite and near 1."""

import jax.numpy as jnp
from jax import Array, lax


def as_float32(x: Array) -> Array:
  """Converts real numbers of any type to float32.

  Raises:
    TypeError: they are complex; their imaginary part would be lost.
  """
  check_real(x)
  return jnp.asarray(x).astype(jnp.float32)


def check_real(*arrays: Array) -> None:
  """Raises TypeError where an array is complex."""
  for x in arrays:
    if jnp.iscomplexobj(x):
      raise TypeError(f'numbers must be real to be coded, got {x.dtype}')


def check_shapes(**arrays: tuple[Array | None, str]) -> None:
  """Raises ValueError unless arrays have the shapes written beside them.

    check_shapes(signals=(signals, 'N D'), dictionary=(dictionary, 'D K'))

  A letter stands for one size in all of them. An array may be None.
  """
  known: dict[str, int] = {}
  for name, (array, text) in arrays.items():
    if array is None:
      continue
    letters, shape = text.split(), jnp.shape(array)
    given = [f'{x} = {known[x]}' for x in dict.fromkeys(letters) if x in known]
    fits = len(letters) == len(shape)
    for letter, size in zip(letters, shape, strict=False):
      fits = fits and known.setdefault(letter, size) == size
    if not fits:
      sizes = f' with {" and ".join(given)}' if given else ''
      raise ValueError(
        f'{name} must be [{", ".join(letters)}]{sizes}, got {list(shape)}'
      )


def finite_rows(rows: Array) -> Array:
  """Sets rows [N, D] with an entry that is not finite to zero."""
  # Not by the largest one: XLA:CPU passes over NaN in a maximum.
  finite = jnp.all(jnp.isfinite(rows), axis=1, keepdims=True)
  return jnp.where(finite, rows, 0.0)


def exponents(sizes: Array) -> Array:
  """Finds the minimum e with size < 2^e, for each size of 0 or more: int32.

  It is -126 for zero, and 129 for what is not finite.
  """
  return (lax.bitcast_convert_type(sizes, jnp.int32) >> 23) - 126


def scale(x: Array, exponent: Array) -> Array:
  """Returns x 2^exponent, exact in float32, for exponents from -252 to 254.

  In two steps, since one factor may leave float32; and not by `ldexp` of all
  of x, which costs as much as a step of a pursuit.
  """
  half = exponent // 2
  return x * power_of_two(half) * power_of_two(exponent - half)


def power_of_two(exponent: Array) -> Array:
  """Returns 2^exponent, put together from its bits; 2^-126 for less."""
  bits = (jnp.maximum(exponent, -126) + 127) << 23
  return lax.bitcast_convert_type(bits, jnp.float32)
