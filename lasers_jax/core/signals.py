"""Signals that ask a process to end: Ctrl-C, SIGTERM, SIGHUP, SIGUSR1.

Python runs their handlers in the main thread alone, between two instructions of
its own: not while XLA compiles. So a thread listens, too, and ends the process
if the main thread does not react.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, NoReturn

ASKING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1
PATIENCE = 3.0  # seconds that the main thread has
# Launchers pass a signal on that has reached the whole group anyway: what comes
# within these seconds is no second Ctrl-C.
_ECHO = 0.2

End = Callable[[int, Callable | None], NoReturn]


class Asked(KeyboardInterrupt):
  """Says that a signal asked the process to end, with nothing to save."""

  def __init__(self, number: int):
    super().__init__()
    self.number = number


def end_without_traceback() -> None:
  """Lets Ctrl-C end the process at once, while its modules are loaded."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def die(number: int) -> NoReturn:
  """Ends the process as the signal does by default, so that a shell knows."""
  # Python's own function is for the main thread alone.
  ctypes.CDLL(None).signal(number, ctypes.c_void_p(signal.SIG_DFL))
  os.kill(os.getpid(), number)
  os._exit(128 + number)


class Listener:
  """Handles the signals: a context of the main thread.

  At first a signal raises `Asked` in the main thread; inside `noting` it is
  noted alone. Signals that are ignored (nohup) stay so. Leaving the context
  brings back the handlers that were there.

  Args:
    end: ends the process, given the signal and the last argument of `rescuing`.
      Called if the main thread does not react in PATIENCE seconds. A second
      Ctrl-C then ends the process at once; without `end`, it does what it did
      before.

  Attributes:
    number: the signal that came first; None before.
    active: the listener of this process, since signals are the process's.
  """

  active: ClassVar['Listener | None'] = None

  def __init__(
    self,
    end: End | None = None,
    asking: Iterable[int] = ASKING,
  ):
    self.number: int | None = None
    self._end, self._asking = end, asking
    self._before: dict[int, Callable | int | None] = {}
    self._lock = threading.Lock()
    # What the main thread is in: whether it can be left by an exception, from
    # outside, what is to be done before, and since when.
    self._raises, self._overdue, self._rescue = True, True, None
    self._since = 0.0
    self._heard: float | None = None  # when the first signal came
    self._note: Callable[[int], None] = lambda number: None

  def __enter__(self) -> 'Listener':
    if self._end:
      ear, self._mouth = socket.socketpair()
      self._mouth.setblocking(False)
      self._wakeup = signal.set_wakeup_fd(self._mouth.fileno())
      self._thread = threading.Thread(
        target=self._listen, args=[ear, self._end], daemon=True
      )
      self._thread.start()
    for number in self._asking:
      if signal.getsignal(number) != signal.SIG_IGN:
        self._before[number] = signal.signal(number, self._hear)
    self._outer, Listener.active = Listener.active, self
    return self

  def __exit__(self, *_) -> None:
    Listener.active = self._outer
    for number, handler in self._before.items():
      signal.signal(number, handler)
    if self._end:
      signal.set_wakeup_fd(self._wakeup)
      self._mouth.close()
      self._thread.join()

  @contextlib.contextmanager
  def noting(self, note: Callable[[int], None] | None = None) -> Iterator[None]:
    """Notes signals in this block, tells `note`, and ends nothing.

    At the end of the block they are forgotten.
    """
    before, self._note = self._note, note or self._note
    with self._being(raises=False, overdue=False, rescue=None):
      try:
        yield
      finally:
        self._note = before
        self.number = self._heard = None

  @contextlib.contextmanager
  def rescuing(self, rescue: Callable[[], None]) -> Iterator[None]:
    """Lets signals end the process in this block of `noting`.

    Before that, another thread calls `rescue`: the main one never gets out.
    """
    with self._being(raises=False, overdue=True, rescue=rescue):
      yield

  def end(self, number: int) -> NoReturn:
    """Ends the process, with nothing to save."""
    assert self._end  # a listener that ends nothing is not asked to
    with self._lock:
      self._end(number, None)

  @contextlib.contextmanager
  def _being(self, raises: bool, overdue: bool, rescue) -> Iterator[None]:
    before = self._raises, self._overdue, self._rescue
    self._become(raises, overdue, rescue)
    try:
      yield
    finally:
      self._become(*before)

  def _become(self, raises: bool, overdue: bool, rescue) -> None:
    with self._lock:  # Held for ever while another thread ends the process.
      self._raises, self._overdue, self._rescue = raises, overdue, rescue
      self._since = time.monotonic()

  def _hear(self, number: int, _) -> None:
    """Runs in the main thread, when it comes by."""
    first, self.number = self.number is None, self.number or number
    if self._raises:
      if first:
        raise Asked(number)
      return
    if number == signal.SIGINT and not self._end:
      signal.signal(number, self._before[number])
    self._note(number)

  def _listen(self, ear: socket.socket, end: End) -> None:
    """Runs in a thread, whatever the main one is busy with."""
    while True:
      pause = None if self._heard is None else 0.1
      if select.select([ear], [], [], pause)[0]:
        said = ear.recv(1)
        if not said:
          ear.close()
          return
        self._take(said[0])
      heard = self._heard
      with self._lock:
        late = heard and time.monotonic() - max(heard, self._since) > PATIENCE
        if late and self._overdue:
          end(self._first, self._rescue)

  def _take(self, number: int) -> None:
    now = time.monotonic()
    if number not in self._before:
      return
    if self._heard is None:
      self._heard, self._first = now, number
    elif number == signal.SIGINT and now - self._heard > _ECHO:
      die(number)
