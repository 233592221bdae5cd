"""Paths of any kind, and files that are written whole or not at all."""

import contextlib
import fcntl
import json
import logging
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Hashable, Iterator
from typing import IO, Any

from lasers_jax.core import buckets
from lasers_jax.errors import InputError

CACHE = '~/.cache/lasers_jax'  # what may be made anew
PART = '.part'  # how the name of a hidden file ends that is being written


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, mode: str = 'wb') -> Iterator[IO]:
  """Opens a file that takes its name when the block ends without an error.

  A file of that name is replaced atomically, and keeps its permissions; a link
  stays one. Any number of writers, in any processes and machines, may write the
  same file: the result is that of one of them. Text is UTF-8. What goes to a
  bucket is kept in a temporary file until the block has ended.
  """
  path, encoding, errors = os.fspath(path), *(_BYTES if 'b' in mode else _TEXT)
  if is_remote(path):
    with tempfile.NamedTemporaryFile(
      mode, encoding=encoding, errors=errors
    ) as file:
      yield file
      file.flush()
      buckets.put(file.name, path)
    return
  path = os.path.realpath(path)
  # No number of a process: those of containers are alike.
  part = os.path.join(os.path.dirname(path), f'.{secrets.token_hex(16)}{PART}')
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
  lock, the log says so. A bucket has no locks, and nothing is held: see
  `written_if`.
  """
  if is_remote(os.fspath(path)):
    yield
    return
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


def checked(path: str) -> str:
  """Returns a path as it is, or an address in its plain form.

  Raises:
    InputError: the address cannot be used.
  """
  if is_remote(path):
    buckets.configure()  # Orbax may be the next to ask.
    return buckets.checked(path)
  for scheme in buckets.SCHEMES:
    if path.startswith(f'{scheme}:'):
      raise InputError(
        f'{path} is no address, which begins with {scheme}://; for a file of '
        f'that name, say ./{path}'
      )
  return path


def absolute(path: str) -> str:
  """Returns the absolute path of a file or folder; `~` is the home folder.

  Addresses (`gs://bucket/folder`, `s3://...`) keep their meaning.

  Raises:
    InputError: the address cannot be used, or the home folder is unknown.
  """
  path = checked(path)
  if is_remote(path):
    return path
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
  if is_remote(path):
    probe = os.path.join(absolute(path), f'.{secrets.token_hex(16)}{PART}')
    try:
      write_text(probe, '')
      remove(probe)
    except InputError as error:
      raise InputError(str(error).replace(probe, path)) from error
    return
  with writing(path, instead):
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as file:
      file.write(b'0')


def is_remote(path: str) -> bool:
  """Returns whether a path is an address, as `gs://bucket/folder`."""
  return buckets.is_address(path)


def opened(path: str | os.PathLike) -> IO[bytes]:
  """Opens a file to read its bytes, in any order.

  Raises:
    FileNotFoundError: there is none.
  """
  path = os.fspath(path)
  return buckets.opened(path) if is_remote(path) else open(path, 'rb')


def read_bytes(path: str) -> bytes:
  """Returns the bytes of a file; FileNotFoundError where there is none."""
  if is_remote(path):
    return buckets.read(path)
  with open(path, 'rb') as file:
    return file.read()


def read_text(path: str) -> str:
  """Returns the text of a file, as UTF-8."""
  return read_bytes(path).decode()


@contextlib.contextmanager
def as_local(path: str) -> Iterator[str]:
  """Gives the path of a file on this machine: a copy of what is elsewhere."""
  if not is_remote(path):
    yield path
    return
  with (
    tempfile.NamedTemporaryFile(suffix=os.path.splitext(path)[1]) as copy,
    opened(path) as file,
  ):
    shutil.copyfileobj(file, copy, 2**24)
    copy.flush()
    yield copy.name


def exists(path: str) -> bool:
  """Returns whether there is a file or folder."""
  if is_remote(path):
    return buckets.info(path) is not None
  return os.path.exists(path)


def is_folder(path: str) -> bool:
  """Returns whether there is a folder; in a bucket, anything below a name."""
  return buckets.is_folder(path) if is_remote(path) else os.path.isdir(path)


def check_bucket(path: str) -> None:
  """Raises InputError where a path is of a bucket that is not there."""
  if is_remote(path):
    buckets.check_bucket(path)


def is_outage(error: Exception) -> bool:
  """Returns whether an error says that a store does not answer, or refuses."""
  return buckets.is_outage(error)


def names(folder: str) -> list[str]:
  """Returns the names of the files and folders in a folder, in order.

  Raises:
    FileNotFoundError: there is no such folder; in a bucket, nothing is in it.
  """
  if is_remote(folder):
    return buckets.names(folder)
  return sorted(os.listdir(folder))


def make_folder(path: str) -> None:
  """Makes a folder, and those above it; a bucket needs none."""
  if not is_remote(path):
    os.makedirs(path, exist_ok=True)


def remove(path: str) -> None:
  """Removes a file, where there is one."""
  if is_remote(path):
    buckets.remove(path)
    return
  with contextlib.suppress(FileNotFoundError):
    os.remove(path)


def version(path: str) -> Hashable | None:
  """Returns what changes with each write of a file; None without one."""
  if is_remote(path):
    return buckets.version(path)
  try:
    stat = os.stat(path)
  except FileNotFoundError:
    return None
  return stat.st_mtime_ns, stat.st_ino


def written_if(path: str, data: bytes, known: Hashable | None) -> str | None:
  """Writes an object of a bucket if its version is still the known one.

  Args:
    known: of `version`; None where there was none.

  Returns:
    The new version; None where another writer came first.
  """
  return buckets.swap(path, data, known)


def appending(path: str) -> IO[str]:
  """Opens a file of a disk to add lines at its end; a bucket has no append."""
  return open(path, 'a', encoding='utf-8')


def write_text(path: str, text: str) -> None:
  """Writes a file whole or not at all."""
  with written_whole(path, 'w') as file:
    file.write(text)
