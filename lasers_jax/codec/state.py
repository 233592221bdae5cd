"""What a codec keeps beside its model: tables, and how the code was changed."""

import hashlib
import json
import zipfile
from typing import Any, NamedTuple

import numpy as np

from lasers_jax.codec.container import HASH_BYTES
from lasers_jax.codec.tables import Tables
from lasers_jax.errors import InputError
from lasers_jax.files import written_whole

_ABOUT = 'about'


class State(NamedTuple):
  """How the codes of a model are written.

  `levels` are those of coefficients, float32 [2^b], where they are not the
  model's own.
  """

  weights: str  # hash of the model's
  changes: dict[str, Any]  # of the bottleneck's fields
  tables: Tables  # by names without a leading dot
  levels: np.ndarray | None = None

  def hash(self) -> bytes:
    """Names the state in a file: HASH_BYTES."""
    digest = hashlib.sha256(_about(self).encode())
    for name, array in sorted(_arrays(self).items()):
      digest.update(f'{name} {array.dtype.str} {array.shape}'.encode())
      digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()[:HASH_BYTES]


def save(path: str, state: State) -> None:
  """Writes a state to one .npz file."""
  with written_whole(path) as file:
    np.savez(file, **{_ABOUT: np.array(_about(state))}, **_arrays(state))


def load(path: str) -> State:
  """Reads what `save` wrote; nothing in the file is run.

  Raises:
    InputError: the file is damaged or something else.
    FileNotFoundError: there is none.
  """
  try:
    with open(path, 'rb') as opened, np.load(opened) as file:
      arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays.pop(_ABOUT)))
    levels = arrays.pop('.levels', None)
    return State(about['weights'], about['changes'], arrays, levels)
  except FileNotFoundError:
    raise
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
    raise InputError(
      f'{path} is damaged: {error}; remove it, and encode again'
    ) from error


def _about(state: State) -> str:
  return json.dumps(
    {'weights': state.weights, 'changes': state.changes}, sort_keys=True
  )


def _arrays(state: State) -> dict[str, np.ndarray]:
  arrays = {k: x.astype('<i8') for k, x in state.tables.items()}
  if state.levels is not None:
    arrays['.levels'] = state.levels.astype('<f4')
  return arrays
