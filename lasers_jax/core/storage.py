"""Paths of any kind, and files that are written whole or not at all."""

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from etils import epath

from lasers_jax.errors import InputError

CACHE = '~/.cache/lasers_jax'  # what may be made anew


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, mode: str = 'wb') -> Iterator[IO]:
  """Opens a file that takes its name when the block ends without an error.

  A file of that name is replaced atomically, and keeps its permissions; a link
  stays one. Any number of writers, in any processes and machines, may write the
  same file: the result is that of one of them. Text is UTF-8.
  """
  path = os.path.realpath(path)
  # No number of a process: those of containers are alike.
  part = os.path.join(os.path.dirname(path), f'.{secrets.token_hex(16)}.part')
  encoding, errors = _BYTES if 'b' in mode else _TEXT
  mode = mode.replace('w', 'x')
  try:
    with open(part, mode, encoding=encoding, errors=errors) as file:
      yield file
    with contextlib.suppress(OSError):  # there is none, or disks know no modes
      shutil.copymode(path, part)
    os.replace(part, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(part)


# Names of files may hold bytes that are no UTF-8, and text of them is.
_BYTES, _TEXT = (None, None), ('utf-8', 'backslashreplace')


@contextlib.contextmanager
def held(path: str | os.PathLike) -> Iterator[None]:
  """Waits until nobody else holds a lock file, and holds it during the block.

  The hold ends with the process, however that ends. Where the disk cannot
  lock, the log says so.
  """
  with open(path, 'ab') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
      logging.warning('%s cannot be locked: %s', path, error.strerror)
    yield


def one_line(error: Exception) -> str:
  """Returns an error as a line of at most 200 characters."""
  said = getattr(error, 'strerror', None) or str(error) or type(error).__name__
  return ' '.join(said.split())[:200]


def as_json(found: Any) -> str:
  """Returns results as JSON, with null for NaN and infinity."""

  def plain(x: Any) -> Any:
    if isinstance(x, dict):
      return {key: plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
      return [plain(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x

  return json.dumps(plain(found), indent=2, allow_nan=False) + '\n'


def local(path: str) -> str:
  """Returns the absolute path of a file or folder; `~` is the home folder.

  Raises:
    InputError: it is an address (`gs://...`), or the home folder is unknown.
  """
  if re.match(r'[a-zA-Z][a-zA-Z0-9+.-]*://', path):
    raise InputError(f'{path} is an address: a path of this machine is needed')
  expanded = os.path.expanduser(path)
  if expanded.startswith('~'):
    raise InputError(
      f'nobody knows the home folder in {path}: for a folder of that name, '
      f'say ./{path}'
    )
  return os.path.abspath(expanded)


@contextlib.contextmanager
def writing(path: str, instead: str = '') -> Iterator[None]:
  """Turns an error of the disk into an InputError that names the path.

  Args:
    instead: what the user can do; the message ends with it.
  """
  try:
    yield
  except OSError as error:
    more = f' ({instead})' if instead else ''
    raise InputError(
      f'{path} cannot be written: {one_line(error)}{more}'
    ) from error


def check_folder(path: str, instead: str = '') -> None:
  """Makes a folder; raises InputError if nothing can be written there."""
  with writing(path, instead):
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as file:
      file.write(b'0')


def is_remote(path: str) -> bool:
  """Returns whether a path is an address, as `gs://bucket/folder`."""
  return '://' in path


def opened(path: str) -> IO[bytes]:
  """Opens a file to read its bytes."""
  return epath.Path(path).open('rb')


def read_text(path: str) -> str:
  """Returns the text of a file, as UTF-8."""
  return epath.Path(path).read_text(encoding='utf-8')


def exists(path: str) -> bool:
  """Returns whether there is a file or folder."""
  return epath.Path(path).exists()


def is_folder(path: str) -> bool:
  """Returns whether there is a folder."""
  return epath.Path(path).is_dir()


def names(folder: str) -> list[str]:
  """Returns the names of the files and folders in a folder, in order."""
  return sorted(x.name for x in epath.Path(folder).iterdir())


def make_folder(path: str) -> None:
  """Makes a folder, and those above it."""
  epath.Path(path).mkdir(parents=True, exist_ok=True)


def write_text(path: str, text: str) -> None:
  """Writes a file whole or not at all."""
  with written_whole(path, 'w') as file:
    file.write(text)
