"""Files that are there whole or not at all, and what is read of them."""

import contextlib
import fcntl
import json
import logging
import math
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import jax
import numpy as np

from lasers_jax.errors import InputError

CACHE = '~/.cache/lasers_jax'


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, mode: str = 'wb') -> Iterator[IO]:
  """Opens a file that takes its name when the block ends without an error.

  A file of that name is replaced in one act, and keeps its permissions; a link
  stays one. Any number of writers, of whatever processes and machines, may
  write the same file: it is all of one of them. Text is UTF-8.
  """
  path = os.path.realpath(path)
  # No number of a process: those of containers are alike.
  part = os.path.join(os.path.dirname(path), f'.{secrets.token_hex(16)}.part')
  text = {} if 'b' in mode else _TEXT
  try:
    with open(part, mode.replace('w', 'x'), **text) as file:
      yield file
    with contextlib.suppress(OSError):  # there is none, or disks know no modes
      shutil.copymode(path, part)
    os.replace(part, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(part)


# Names of files may hold bytes that are no UTF-8, and text of them is.
_TEXT = {'encoding': 'utf-8', 'errors': 'backslashreplace'}


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
  """Makes an error of the disk an InputError that names the path."""
  try:
    yield
  except OSError as error:
    raise InputError(f'{path} cannot be written: {one_line(error)}') from error


def check_folder(path: str | os.PathLike) -> None:
  """Makes a folder; raises InputError where nothing can be written there."""
  with writing(path):
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as file:
      file.write(b'0')


@contextlib.contextmanager
def held(path: str | os.PathLike) -> Iterator[None]:
  """Waits until nobody else holds a lock file, and holds it during the block.

  The hold ends with the process, however that ends. Where the disk cannot
  lock, the log says so.

  Raises:
    InputError: the file cannot be written.
  """
  with writing(path):
    lock = open(path, 'ab')
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
      logging.warning('%s cannot be locked: %s', path, error.strerror)
    yield


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads an .npz file, as `numpy.savez` writes it; nothing in it is run.

  What it takes of memory is no more than its size.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it cannot be read, is damaged or something else; in one line.
  """
  try:
    with open(path, 'rb') as file, zipfile.ZipFile(file) as parts:
      # Compressed, a small file may hold more than there is memory for.
      if any(x.compress_type != zipfile.ZIP_STORED for x in parts.infolist()):
        raise ValueError('compressed')
      if parts.testzip():
        raise ValueError('a checksum does not fit')
      file.seek(0)
      with np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
      if not all(isinstance(x, np.ndarray) for x in found.values()):
        raise ValueError('not only arrays')
      return found
  except FileNotFoundError:
    raise
  except Exception as error:  # a damaged file may raise whatever it likes
    raise ValueError(one_line(error)) from error


def cache_folder() -> str:
  """The folder of what may be made anew: that of JAX's compiled programs.

  Or, where JAX keeps none or keeps them elsewhere than on a disk, CACHE.
  """
  folder = jax.config.jax_compilation_cache_dir
  return folder if folder and '://' not in folder else os.path.expanduser(CACHE)


def one_line(error: Exception) -> str:
  """Says an error on a line of at most 200 characters."""
  said = getattr(error, 'strerror', None) or str(error) or type(error).__name__
  return ' '.join(said.split())[:200]


def as_json(found: Any) -> str:
  """Writes results as JSON, where NaN and infinity are null: it has no more."""

  def plain(x: Any) -> Any:
    if isinstance(x, dict):
      return {key: plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
      return [plain(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x

  return json.dumps(plain(found), indent=2, allow_nan=False) + '\n'
