"""Objects of buckets, gs:// and s3://: what `core/storage.py` asks them.

fsspec reads and writes them, by gcsfs and s3fs. An object appears whole or not
at all; there is no rename, no append, no folder and no lock, but a write that
depends on what is there (`swap`).
"""

import contextlib
import errno
import functools
import io
import logging
import os
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from lasers_jax.core.patience import patience
from lasers_jax.errors import InputError, nearest

# Read by etils and gcsfs when they are first used. Orbax and tfds go the same
# way as we do, also where TensorFlow is installed; and gcsfs asks for the kind
# of a bucket by gRPC, which takes a minute where nobody answers that.
os.environ['EPATH_USE_TF'] = 'false'
os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')

SCHEMES = {'gs': 'gcs', 's3': 's3'}  # each with the extra that it requires
# Those of others for the same, and what has an address but is no bucket.
_OTHERS = {'gcs': 'gs', 's3a': 's3', 's3n': 's3'}
_ADDRESS = re.compile(r'([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)', re.DOTALL)
# Readers take them for patterns, versions or slashes.
_LOST = '\\?*[]#'
_CONNECT, _READ = 10, 60  # seconds until a request is given up, and repeated
_BUFFER = 2**22  # bytes that a reader fetches at least


def is_address(path: str) -> bool:
  """Returns whether a path begins with a scheme, as gs://bucket/folder."""
  return bool(_ADDRESS.match(path))


def checked(path: str) -> str:
  """Returns an address in its plain form.

  Raises:
    InputError: of an unknown scheme, without a bucket, or of a name that could
      not be read back.
  """
  found = _ADDRESS.match(path)
  assert found is not None  # `is_address` saw to it
  scheme, rest = found.groups()
  if scheme not in SCHEMES:
    likely = _OTHERS.get(scheme.lower())
    near = f'; did you mean {likely}://?' if likely else ''
    near = near or nearest(scheme.lower(), {x: f'{x}://' for x in SCHEMES})
    raise InputError(
      f'{path} is an address of {scheme}://, and only gs:// and s3:// can be '
      f'used{near}'
    )
  bucket, _, name = rest.partition('/')
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._-]*', bucket):
    raise InputError(f'{path} names no bucket: {scheme}://BUCKET/FOLDER')
  for letter in name:
    if letter in _LOST or not letter.isprintable():
      raise InputError(
        f'nothing can be read back from {path!a}: {letter!a} may not be in the '
        'name of an object'
      )
  name = posixpath.normpath(f'/{name}').strip('/')
  return f'{scheme}://{bucket}/{name}'.rstrip('/')


def info(path: str) -> dict[str, Any] | None:
  """Returns what fsspec says of an object or folder; None where none is."""
  system, key = _system(path)
  with _asked(path):
    if '/' not in key:
      return {'type': 'directory'}  # `names` and `put` say where there is none
    try:
      return system.info(key)
    except FileNotFoundError:
      return None


def is_folder(path: str) -> bool:
  """Returns whether objects have names below this one."""
  found = info(path)
  return found is not None and found['type'] == 'directory'


def names(path: str) -> list[str]:
  """Returns the names in a folder, in order; FileNotFoundError without one."""
  system, key = _system(path)
  with _asked(path):
    found = [x['name'].rstrip('/') for x in system.ls(key, detail=True)]
  return sorted(x.rpartition('/')[2] for x in found if x != key)


def opened(path: str) -> io.BufferedReader:
  """Opens an object to read it, or parts of it."""
  found = info(path)
  if found is None or found['type'] == 'directory':
    raise _no_file(path)
  return io.BufferedReader(_Object(path, found['size']), _BUFFER)


def read(path: str) -> bytes:
  """Returns the bytes of an object; FileNotFoundError where there is none."""
  system, key = _system(path)
  with _asked(path):
    return system.cat_file(key)


def put(file: str, path: str) -> None:
  """Writes a local file to an object."""
  system, key = _system(path)
  with _asked(path, writes=True):
    system.put_file(file, key)


def remove(path: str) -> None:
  """Removes an object, where there is one."""
  system, key = _system(path)
  with _asked(path, writes=True), contextlib.suppress(FileNotFoundError):
    system.rm_file(key)


def version(path: str) -> str | None:
  """Returns what changes with each write of an object; None without one."""
  found = info(path)
  if found is None or found['type'] == 'directory':
    return None
  return found.get('generation') or found['ETag']


def swap(path: str, data: bytes, known: Any) -> str | None:
  """Writes an object if its version is still the known one.

  Returns:
    The new version; None where another writer came first.
  """
  system, key = _system(path)
  with _asked(path, writes=True):
    swapped = _swap_s3 if path.startswith('s3:') else _swap_gs
    try:
      return swapped(system, key, data, known)
    except FileExistsError:
      return None


def check_bucket(path: str) -> None:
  """Raises InputError where a bucket is not there or cannot be listed."""
  system, key = _system(path)
  bucket = key.partition('/')[0]
  with _asked(path):
    try:
      if path.startswith('s3:'):
        system.call_s3('list_objects_v2', Bucket=bucket, MaxKeys=1)
      else:
        system.call('GET', 'b/{}/o', bucket, maxResults=1, json_out=True)
    except FileNotFoundError as error:
      raise _no_bucket(path) from error


class _Object(io.RawIOBase):
  """Reads ranges of an object."""

  def __init__(self, path: str, size: int):
    self._path, self._size, self._at = path, size, 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    base = (0, self._at, self._size)[whence]
    self._at = max(0, base + offset)
    return self._at

  def readinto(self, buffer) -> int:
    data = self._fetch(len(buffer))
    buffer[: len(data)] = data
    return len(data)

  def readall(self) -> bytes:
    return self._fetch(self._size)

  def _fetch(self, count: int) -> bytes:
    end = min(self._at + count, self._size)
    if end <= self._at:
      return b''
    system, key = _system(self._path)
    with _asked(self._path):
      data = system.cat_file(key, start=self._at, end=end)
    self._at += len(data)
    return data


def _swap_gs(system: Any, key: str, data: bytes, known: str | None) -> str:
  bucket, _, name = key.partition('/')
  url = system.base.replace('/storage/v1/', '/upload/storage/v1/b/{}/o')
  done = system.call(
    'POST', url, bucket, uploadType='media', name=name, json_out=True,
    ifGenerationMatch=known or '0', data=data,
  )  # fmt: skip
  return str(done['generation'])


def _swap_s3(system: Any, key: str, data: bytes, known: str | None) -> str:
  bucket, _, name = key.partition('/')
  match = {'IfMatch': known} if known else {'IfNoneMatch': '*'}
  try:
    done = system.call_s3(
      'put_object', Bucket=bucket, Key=name, Body=data, **match
    )
  except OSError as error:
    text = f'{error} {error.__cause__!r}'
    if 'Precondition' in text or 'NoSuchKey' in text:
      raise FileExistsError from error
    raise
  return done['ETag']


def _system(path: str) -> tuple[Any, str]:
  """Returns the file system of a scheme, and the name of an object for it."""
  path = checked(path)
  scheme, _, key = path.partition('://')
  extra = SCHEMES[scheme]
  try:
    configure()
    import fsspec

    return fsspec.filesystem(extra), key
  except ImportError as error:
    raise InputError(
      f'{path} requires a package that is not installed ({error.name}): '
      f"pip install 'lasers_jax[{extra}]'"
    ) from error


@functools.cache
def configure() -> None:
  """Sets what every file system is made with, those of Orbax and tfds, too.

  Listings are never kept: other processes write, and so do other objects of
  this one.
  """
  from fsspec.config import conf

  # They are raised, too, and said on one line.
  for name in 'gcsfs', 'fsspec', 's3fs', 'aiobotocore', 'botocore':
    logging.getLogger(name).setLevel(logging.CRITICAL)

  gs = conf.setdefault('gcs', {})
  s3 = conf.setdefault('s3', {})
  for found in gs, s3:
    found['use_listings_cache'] = False
  with contextlib.suppress(ImportError):
    import aiohttp

    gs.setdefault(
      'requests_timeout',
      aiohttp.ClientTimeout(sock_connect=_CONNECT, sock_read=_READ),
    )
  s3.setdefault(
    'config_kwargs',
    {
      'connect_timeout': _CONNECT,
      'read_timeout': _READ,
      'retries': {'max_attempts': 1},  # s3fs repeats by itself
    },
  )


@contextlib.contextmanager
def _asked(path: str, writes: bool = False) -> Iterator[None]:
  """Turns the errors of a store into one line each; says that it is slow.

  FileNotFoundError stays one where something is read: there is no such object.
  """
  with patience(f'{path} does not answer'):
    try:
      yield
    except FileNotFoundError as error:
      if writes:
        raise _no_bucket(path) from error
      raise _no_file(path) from error
    except (InputError, FileExistsError):
      raise
    except Exception as error:  # each package has its own
      act = 'written' if writes else 'read'
      raise InputError(
        f'{path} cannot be {act}: {_reason(path, error)}'
      ) from error


def _no_file(path: str) -> FileNotFoundError:
  return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _no_bucket(path: str) -> InputError:
  scheme, _, key = path.partition('://')
  bucket = key.partition('/')[0]
  return InputError(
    f'there is no bucket {scheme}://{bucket}: make it, or name another'
  )


# What TensorStore, which reads and writes the arrays of checkpoints, says.
_STATUS = re.compile(
  'UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|ABORTED'
)
_PACKAGES = {'aiohttp', 'gcsfs', 'google', 'requests'}


def is_outage(error: Exception) -> bool:
  """Returns whether an error says that a store does not answer, or refuses."""
  if isinstance(error, TimeoutError | ConnectionError | PermissionError):
    return True
  of = {x.__module__.partition('.')[0] for x in type(error).__mro__}
  text = str(error)
  return bool(_PACKAGES & of or _STATUS.search(text)) or 'Forbidden' in text


_LOGIN = {
  'gs': 'gcloud auth application-default login, or '
  'GOOGLE_APPLICATION_CREDENTIALS=FILE',
  's3': 'aws configure, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
}


def _reason(path: str, error: Exception) -> str:
  """Returns why a store refused, in a line."""
  text = ' '.join(str(error).split())[:200] or type(error).__name__
  code = str(getattr(error, 'code', ''))
  of = {x.__module__.partition('.')[0] for x in type(error).__mro__}
  of |= {x.__name__ for x in type(error).__mro__}
  if (
    {'NoCredentialsError', 'GoogleAuthError'} & of
    or code == '401'
    or 'Anonymous caller' in text
  ):
    return f'no credentials ({text}): {_LOGIN[path[:2]]}'
  if 'PermissionError' in of or text.startswith('Forbidden') or code == '403':
    return f'no permission ({text})'
  if {
    'aiohttp',
    'requests',
    'TimeoutError',
    'HTTPClientError',
    'ConnectionError',
  } & of:
    return f'the store does not answer ({text}): is there a network?'
  return text
