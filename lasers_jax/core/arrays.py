"""Arrays in files."""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.core.storage import one_line, opened, written_whole
from lasers_jax.errors import InputError

_HEADER = 'header.json'  # the entry of a file that says what the others are
_UNPACKED = 2**26  # bytes of the compressed arrays of a file, at most


def flat_names(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by their paths, as 'params/decoder/kernel'."""

  def name(entry) -> str:
    for kind in ('name', 'key', 'idx'):
      if hasattr(entry, kind):
        return str(getattr(entry, kind))
    return str(entry)

  return {
    '/'.join(map(name, path)): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def write_arrays(
  path: str | os.PathLike,
  arrays: Mapping[str, np.ndarray],
  header: Any = None,
  compress: bool = False,
) -> None:
  """Writes arrays to one .npz file, whole or not at all.

  Args:
    header: any value of JSON, beside the arrays; None writes none.
    compress: for arrays of 64 MiB at most; larger ones are not read again.
  """
  with written_whole(path) as file:
    _save(file, arrays, header, compress)


def arrays_as_bytes(
  arrays: Mapping[str, np.ndarray], header: Any = None, compress: bool = False
) -> bytes:
  """Returns the file that `write_arrays` writes."""
  file = io.BytesIO()
  _save(file, arrays, header, compress)
  return file.getvalue()


def _save(file: Any, arrays: Mapping, header: Any, compress: bool) -> None:
  save = np.savez_compressed if compress else np.savez
  save(file, **_entries(arrays, header))


def _entries(arrays: Mapping[str, np.ndarray], header: Any) -> dict[str, Any]:
  named = {} if header is None else {_HEADER: np.array(json.dumps(header))}
  return {**named, **arrays}


def read_with_header(
  path: str | os.PathLike,
) -> tuple[Any, dict[str, np.ndarray]]:
  """Returns the header and the arrays of a file of `write_arrays`.

  Raises:
    FileNotFoundError, ValueError: as `read_arrays`.
  """
  arrays = read_arrays(path)
  if _HEADER not in arrays:
    raise ValueError(f'it has no {_HEADER}')
  try:
    return json.loads(str(arrays.pop(_HEADER))), arrays
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{_HEADER} is no JSON: {one_line(error)}') from error


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads an .npz file of `numpy.savez`; nothing in it is run.

  Takes no more memory than the size of the file and 64 MiB.

  Raises:
    FileNotFoundError: there is none.
    InputError: its bucket cannot be read.
    ValueError: it cannot be read, is damaged or of another kind; in one line.
  """
  try:
    with opened(path) as file, zipfile.ZipFile(file) as parts:
      # Compressed, a small file may hold more than there is memory for.
      packed = [x for x in parts.infolist() if x.compress_type]
      if sum(x.file_size for x in packed) > _UNPACKED:
        raise ValueError('its compressed arrays are too large')
      if parts.testzip():
        raise ValueError('a checksum does not fit')
      file.seek(0)
      with np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
      if not all(isinstance(x, np.ndarray) for x in found.values()):
        raise ValueError('not only arrays')
      return found
  except (FileNotFoundError, InputError):
    raise
  except Exception as error:  # a damaged file may raise whatever it likes
    raise ValueError(one_line(error)) from error
