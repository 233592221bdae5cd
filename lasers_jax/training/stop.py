"""Ends a run between two steps where the system asks for it."""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from lasers_jax.core.signals import ASKING, Listener

T = TypeVar('T')


class Abandoned(Exception):
  """Raised where a run was asked to stop, and the work at hand is dropped."""


class StopRequests:
  """The requests to stop a run; see `stop_requests`."""

  def __init__(self, listener: Listener):
    self._listener, self._asked = listener, False
    self._points = itertools.count()

  def asked(self) -> bool:
    """Returns whether the run was asked to save and stop.

    Several processes learn it at the same call: each must make the same calls.
    """
    if jax.process_count() == 1:
      return self._listener.number is not None
    if not self._asked:
      point = next(self._points)
      self._asked = multihost_utils.reached_preemption_sync_point(point)
    return self._asked

  def check(self) -> None:
    """Raises Abandoned where the run was asked to stop."""
    if self.asked():
      raise Abandoned

  def checked(self, items: Iterable[T]) -> Iterator[T]:
    """Yields items, until the run is asked to stop: then raises Abandoned."""
    for item in items:
      self.check()
      yield item

  @contextlib.contextmanager
  def rescuing(self, rescue: Callable[[], None]) -> Iterator[None]:
    """Runs a block that Abandoned ends, or a rescue from outside.

    Where the main thread does not leave the block within seconds of a request
    to stop, another thread calls `rescue` and ends the program. One of several
    processes waits, since they can only save together.
    """
    alone = jax.process_count() == 1
    with (
      self._listener.rescuing(rescue) if alone else contextlib.nullcontext(),
      contextlib.suppress(Abandoned),
    ):
      yield


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
  """Takes Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 as requests to save and stop.

  Only the main thread receives signals.
  """
  several = jax.process_count() > 1
  # Of several processes JAX itself hears SIGTERM, and agrees with the others.
  asking = set(ASKING) - ({signal.SIGTERM} if several else set())
  listener = Listener.active or Listener(asking=asking)
  with contextlib.ExitStack() as stack:
    alone = listener is not Listener.active
    if alone and threading.current_thread() is threading.main_thread():
      stack.enter_context(listener)
    stack.enter_context(listener.noting(_notify_jax if several else None))
    yield StopRequests(listener)


def _notify_jax(number: int) -> None:
  if number != signal.SIGTERM:
    os.kill(os.getpid(), signal.SIGTERM)
