"""Ends a run between two steps when the system asks for it."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
  """Listens for SIGTERM.

  Gives a function of the step that says whether to save and stop; in a run of
  several processes all of them are told so at the same step.
  """
  if jax.process_count() > 1:
    # JAX itself listens, and agrees on a step with the other processes.
    yield multihost_utils.reached_preemption_sync_point
    return
  received = []
  before = signal.signal(
    signal.SIGTERM, lambda number, _: received.append(number)
  )
  try:
    yield lambda step: bool(received)
  finally:
    signal.signal(signal.SIGTERM, before)
