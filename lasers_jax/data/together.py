"""Lets one process do the work of all, such as the listing of a folder."""

import concurrent.futures
import pickle
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

T = TypeVar('T')

_TURN = 10.0  # seconds that processes wait before they ask again


def by_the_first(act: Callable[[], T]) -> T:
  """Calls a function in the first process, and returns the result in all.

  An error is raised in all of them. The result is pickled.
  """
  if jax.process_count() == 1:
    return act()
  work: concurrent.futures.Future = concurrent.futures.Future()
  if jax.process_index() == 0:
    # No executor: an interrupt would wait for its threads.
    threading.Thread(target=_do, args=(work, act), daemon=True).start()
  # Long work must not look like a process that hangs.
  while not broadcast_one_to_all(np.bool_(_is_done(work))):
    pass
  outcome = _broadcast(work.result() if work.done() else None)
  if isinstance(outcome, Exception):
    raise outcome
  return outcome


def _do(work: concurrent.futures.Future, act: Callable[[], Any]) -> None:
  try:
    work.set_result(act())
  except Exception as error:  # It is raised in all processes.
    work.set_result(error)


def _is_done(work: concurrent.futures.Future) -> bool:
  if jax.process_index():
    return False
  return bool(concurrent.futures.wait([work], _TURN).done)


def _broadcast(value: Any) -> Any:
  """Returns the value of the first process in all processes."""
  data = np.frombuffer(pickle.dumps(value), np.uint8)
  length = int(broadcast_one_to_all(np.int32(len(data))))
  if jax.process_index():
    data = np.zeros(length, np.uint8)
  return pickle.loads(np.asarray(broadcast_one_to_all(data)).tobytes())
