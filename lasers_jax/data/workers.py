"""Prepares images in worker processes."""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

import numpy as np
from absl import flags

from lasers_jax.core.signals import ASKING
from lasers_jax.errors import TrainingError


def iterate_by_workers(batches, count: int) -> Iterator[dict[str, np.ndarray]]:
  """Yields the batches of an `IterDataset`, made by so many processes.

  They end with this process. Raises TrainingError where one of them has died.
  """
  import grain

  if not flags.FLAGS.is_parsed():  # Grain reads its own, also in notebooks
    flags.FLAGS.mark_as_parsed()
  options = grain.MultiprocessingOptions(num_workers=count)
  return _of_workers(batches.mp_prefetch(options, _end_with_parent))


@contextlib.contextmanager
def _apart() -> Iterator[None]:
  """Starts processes, in this block, that signals of a group do not reach.

  This process alone answers signals of a terminal or a scheduler.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
  # What a killed worker leaves in memory is removed; that is no news.
  sys.warnoptions.append('ignore:resource_tracker')
  resource_tracker.ensure_running()  # which lets some of them through again
  signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(*_) -> None:
  """Ends this worker process when the one that started it has ended."""

  def follow() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


def _of_workers(batches) -> Iterator[dict[str, np.ndarray]]:
  """Yields batches; raises TrainingError where a worker process has died."""
  with _apart():
    iterator = iter(batches)
  try:
    with _apart():
      batch = next(iterator)
    while True:
      yield batch
      batch = next(iterator)
  except RuntimeError as error:
    code = re.search(r'terminated unexpectedly .* code (.*?)\. ', str(error))
    if not code:
      raise
    raise TrainingError(
      f'a process that prepares images ended with code {code[1]} (-9: it was '
      'killed, perhaps for want of memory): lower --config.data.workers'
    ) from None
  finally:
    iterator.close()  # killed processes would leave memory behind
