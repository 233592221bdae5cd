"""A lease of a workdir: one run at a time, on a disk and in a bucket.

`.lock` names the holder, who writes it anew every minute. Who finds it older
than three minutes takes it over. On a disk that locks files, the file is
locked, too, and the lock ends with the process, however that ends. A bucket has
no locks; there, whoever writes must have read the last version.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from lasers_jax.core import storage
from lasers_jax.errors import InputError, TrainingError

EVERY, AFTER = 60, 180  # seconds between renewals, and until it is free

# Errors of file systems that cannot lock: Lustre, some NFS, FUSE.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class _Place(Protocol):
  """Where a lease is written.

  Attributes:
    locked: whether no living process of this machine holds it.
  """

  locked: bool

  def read(self) -> bytes: ...

  def write(self, data: bytes) -> bool:
    """Returns False where another has written since the last `read`."""
    ...


class Lease:
  """A held lease; `hold` makes it."""

  def __init__(self, workdir: str, place: _Place):
    self._workdir, self._place = workdir, place
    self._lost, self._ended = False, threading.Event()
    self._me = {**_machine(), 'pid': os.getpid(), 'token': secrets.token_hex(8)}
    self._me['start'] = time.time()
    self._take()
    _HELD.add(self._me['token'])
    self._thread = threading.Thread(target=self._renew, daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Raises TrainingError where another process has taken the lease over."""
    if self._lost:
      raise TrainingError(
        f'another process has taken {self._workdir} over, since this one was '
        f'not heard of for {AFTER} s: nothing more is saved there'
      )

  def release(self) -> None:
    """Gives the lease back."""
    if not self._ended.is_set():
      self._ended.set()
      self._thread.join()
      _HELD.discard(self._me['token'])
      if not self._lost:
        with contextlib.suppress(OSError, InputError):
          self._place.write(b'{}')

  def _take(self) -> None:
    before = _parsed(self._place.read())
    if before and _lives(before, self._place.locked):
      raise refusal(self._workdir, before)
    if before:
      logging.warning(
        '%s was held by %s, which has ended or was not heard of for %d s: '
        'taken over', self._workdir, _named(before),
        max(0, time.time() - before['seen']),
      )  # fmt: skip
    if not self._write():
      raise refusal(self._workdir, _parsed(self._place.read()))

  def _write(self) -> bool:
    text = json.dumps({**self._me, 'seen': time.time()})
    return self._place.write(text.encode())

  def _renew(self) -> None:
    while not self._ended.wait(EVERY):
      try:
        if not self._write():
          # Ours, where the answer to an earlier write was lost.
          now = _parsed(self._place.read()) or {}
          self._lost = now.get('token') != self._me['token']
      except (OSError, InputError) as error:
        logging.warning('the lease of %s is not renewed: %s', self._workdir,
                        storage.one_line(error))  # fmt: skip
      if self._lost:
        logging.error('another process has taken %s over', self._workdir)
        return


_HELD: set[str] = set()  # tokens of this process


@contextlib.contextmanager
def hold(workdir: str) -> Iterator[Lease]:
  """Holds the lease of a workdir during the block.

  Raises:
    InputError: another process holds it, or it cannot be written.
  """
  path = os.path.join(workdir, '.lock')
  remote = storage.is_remote(path)
  with _Object(path) if remote else _File(path, workdir) as place:
    lease = Lease(workdir, place)
    try:
      yield lease
    finally:
      lease.release()


class _Object(contextlib.nullcontext):
  """The lease in a bucket."""

  locked = False

  def __init__(self, path: str):
    self._path, self._version = path, None
    super().__init__(self)

  def read(self) -> bytes:
    # Its version first: what changes in between is another's, and refused.
    self._version = storage.version(self._path)
    return storage.read_bytes(self._path) if self._version else b''

  def write(self, data: bytes) -> bool:
    version = storage.written_if(self._path, data, self._version)
    self._version = version or self._version
    return version is not None


class _File:
  """The lease on a disk."""

  def __init__(self, path: str, workdir: str):
    self._path, self._workdir = path, workdir

  def __enter__(self) -> '_File':
    with storage.writing(self._path):
      self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      self.locked = self._lock()
    except BaseException:
      os.close(self._file)
      raise
    return self

  def __exit__(self, *_) -> None:
    os.close(self._file)

  def _lock(self) -> bool:
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    except BlockingIOError as error:
      raise refusal(self._workdir, _parsed(self.read())) from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise InputError(
          f'{self._workdir} cannot be locked: {error.strerror}'
        ) from error
    logging.warning(
      'the disk of %s cannot lock files: %s, which is renewed every %d s, is '
      'all that keeps other runs away', self._workdir, self._path, EVERY
    )  # fmt: skip
    return False

  def read(self) -> bytes:
    return os.pread(self._file, 2**16, 0)

  def write(self, data: bytes) -> bool:
    # In its place: the lock is of this file. A longer text before has an end
    # that is no JSON, for a moment.
    with storage.writing(self._path):
      os.pwrite(self._file, data, 0)
      os.ftruncate(self._file, len(data))
    return True


def refusal(workdir: str, holder: dict[str, Any] | None) -> InputError:
  """Returns the error for a workdir that another process holds."""
  named, later = '', ''
  if holder:
    named = f' ({_named(holder)})'
    left = AFTER - (time.time() - holder['seen'])
    later = f'; if it was killed, try again in {max(1, round(left))} s'
  return InputError(
    f'another process is training in {workdir}{named}; wait for it, end it, or '
    f'choose another --workdir{later}'
  )


def _named(holder: dict[str, Any]) -> str:
  start = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(holder['start']))
  return f'process {holder["pid"]} of {holder["host"]}, since {start}'


def _lives(holder: dict[str, Any], locked: bool) -> bool:
  """Returns whether the holder of a lease may still be at work."""
  if time.time() - holder['seen'] >= AFTER:
    return False
  here = _machine()
  if holder['kernel'] != here['kernel']:
    return True
  if locked:
    return False  # It would hold the lock.
  if holder['processes'] != here['processes']:
    return True
  if holder['pid'] == os.getpid():
    return holder['token'] in _HELD
  return _runs(holder['pid'])


def _runs(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True


def _machine() -> dict[str, str]:
  """Names this machine, its kernel since it booted, and its process numbers.

  Containers of one machine may share its name, and not its process numbers.
  """
  host = platform.node()
  kernel = processes = host
  with contextlib.suppress(OSError):
    kernel = storage.read_text('/proc/sys/kernel/random/boot_id').strip()
    processes = os.readlink('/proc/self/ns/pid')
  return {'host': host, 'kernel': kernel, 'processes': processes}


def _parsed(data: bytes) -> dict[str, Any] | None:
  """Reads a lease; None where it is free, or none that we know."""
  try:
    found = json.loads(data)
    kinds = dict(host=str, kernel=str, processes=str, token=str, pid=int,
                 start=float, seen=float)  # fmt: skip
    if all(isinstance(found[key], kind) for key, kind in kinds.items()):
      return found
  except (ValueError, KeyError, TypeError):
    pass
  return None
