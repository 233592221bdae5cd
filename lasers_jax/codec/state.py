"""The state of a codec, beside its model: tables, and changes of the code."""

import hashlib
import json
import math
from typing import Any, NamedTuple

import numpy as np

from lasers_jax.codec.container import HASH_BYTES
from lasers_jax.codec.tables import MOST, Tables
from lasers_jax.core.arrays import (
  arrays_as_bytes,
  read_with_header,
  write_arrays,
)
from lasers_jax.core.storage import one_line
from lasers_jax.errors import InputError

_HASH = 'hash'  # with it, an array that is missing shows
_ROWS = '*'  # the tables 0, 1, 2, ... as one array: a name takes 230 bytes
_MOST_ROWS = 2**16


class State(NamedTuple):
  """Holds the settings with which codes of a model are written.

  `levels` are those of coefficients, float32 [2^b], where they are not the
  model's own.
  """

  weights: str  # hash of the model's
  changes: dict[str, Any]  # of the bottleneck's fields
  tables: Tables  # by names without a leading dot
  levels: np.ndarray | None = None

  def hash(self) -> bytes:
    """Names the state in a file: HASH_BYTES."""
    text = json.dumps(_about(self), sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(_arrays(self).items()):
      digest.update(f'{name} {array.dtype.str} {array.shape}'.encode())
      digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()[:HASH_BYTES]


def save(path: str, state: State) -> None:
  """Writes a state to one .npz file."""
  write_arrays(path, _stored(state), _header(state), compress=True)


def as_bytes(state: State) -> bytes:
  """Returns the file that `save` writes."""
  return arrays_as_bytes(_stored(state), _header(state), compress=True)


def load(path: str) -> State:
  """Reads what `save` wrote; nothing in the file is run.

  Raises:
    InputError: the file is damaged or something else.
    FileNotFoundError: there is none.
  """
  try:
    about, arrays = read_with_header(path)
    levels = arrays.pop('.levels', None)
    rows = arrays.pop(_ROWS, ())
    if len(rows) > _MOST_ROWS:
      raise ValueError(f'{_ROWS} has {len(rows)} tables')
    arrays |= {str(i): row for i, row in enumerate(rows)}
    arrays = {name: _widened(array) for name, array in arrays.items()}
    state = State(about['weights'], about['changes'], arrays, levels)
    _check(state)
    # Files that are older say none.
    if about.get(_HASH, name := state.hash().hex()) != name:
      raise ValueError('its hash does not fit')
    return state
  except InputError:
    raise
  except (ValueError, KeyError, TypeError) as error:
    raise InputError(
      f'{path} is damaged: {one_line(error)}; remove it, and encode again'
    ) from error


def load_kept(path: str, weights: str, changes: dict[str, Any]) -> State | None:
  """Reads the state of weights and changes; None if there is none of them.

  Raises:
    InputError: the file is damaged, or of other changes.
  """
  try:
    state = load(path)
  except FileNotFoundError:
    return None
  if state.weights != weights:
    return None
  if state.changes != changes:
    raise InputError(
      f'{path} is of other settings: {state.changes}; remove it, and encode '
      'again'
    )
  return state


def _check(state: State) -> None:
  """Raises ValueError where a state cannot have been saved."""
  if not isinstance(state.weights, str):
    raise ValueError(f'weights are named {state.weights!r}')
  changes = state.changes
  if not isinstance(changes, dict) or not all(map(_is_plain, changes.values())):
    raise ValueError(f'changes are {changes!r}')
  for name, array in state.tables.items():
    # Those of networks are weights of other kinds, and `Codec` knows which.
    least = -MOST if '@' in name else 1
    fits = array.dtype == np.int64 and array.ndim and array.size
    if not fits or array.min() < least or array.max() > MOST:
      raise ValueError(f'{name} is no table')
  levels = state.levels
  if levels is not None and not (
    levels.dtype == np.float32
    and levels.ndim == 1
    and levels.size
    and np.isfinite(levels).all()
  ):
    raise ValueError('levels are no numbers')


def _is_plain(value: Any) -> bool:
  """Whether a field of a bottleneck may have this value."""
  if isinstance(value, float):
    return math.isfinite(value)
  return isinstance(value, str | int)


def _about(state: State) -> dict[str, Any]:
  return {'weights': state.weights, 'changes': state.changes}


def _header(state: State) -> dict[str, Any]:
  return {**_about(state), _HASH: state.hash().hex()}


def _arrays(state: State) -> dict[str, np.ndarray]:
  arrays = {k: x.astype('<i8') for k, x in state.tables.items()}
  if state.levels is not None:
    arrays['.levels'] = state.levels.astype('<f4')
  return arrays


def _stored(state: State) -> dict[str, np.ndarray]:
  """Returns the arrays as files hold them: integers of few bytes."""
  arrays = _arrays(state)
  numbers = sorted(int(x) for x in arrays if x.isdigit())
  rows = [arrays[str(i)] for i in numbers]
  alike = len({x.shape for x in rows}) == 1
  if alike and numbers == [*range(len(rows))] and len(rows) <= _MOST_ROWS:
    arrays = {k: x for k, x in arrays.items() if not k.isdigit()}
    arrays[_ROWS] = np.stack(rows)
  return {
    name: x.astype(_kind(x)) if x.dtype.kind == 'i' else x
    for name, x in arrays.items()
  }


def _kind(array: np.ndarray) -> str:
  """Returns the shortest kind of signed integers that holds an array."""
  size = max(int(array.max()), -1 - int(array.min())).bit_length()
  return next(f'<i{n}' for n in (1, 2, 4, 8) if size < 8 * n)


def _widened(array: np.ndarray) -> np.ndarray:
  return array.astype(np.int64) if array.dtype.kind == 'i' else array
