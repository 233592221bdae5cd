"""Prepares images ahead, in threads or in processes."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import numpy as np
from absl import flags

from lasers_jax.core.signals import ASKING
from lasers_jax.errors import InputError, TrainingError

T = TypeVar('T')
_THREADS = min(8, os.cpu_count() or 1)  # that prepare images


def in_order(act: Callable[[Any], T], items: Iterable) -> Iterator[T]:
  """Yields act(item) for each item, in order; threads work ahead."""
  pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
  ahead: collections.deque[concurrent.futures.Future] = collections.deque()
  try:
    for item in items:
      ahead.append(pool.submit(act, item))
      if len(ahead) > 2 * _THREADS:
        yield ahead.popleft().result()
    while ahead:
      yield ahead.popleft().result()
  finally:
    pool.shutdown(wait=False, cancel_futures=True)


def iterate_by_workers(
  batch: Callable[[int], dict[str, np.ndarray]], start: int, count: int
) -> Iterator[dict[str, np.ndarray]]:
  """Yields batch(start), batch(start + 1), ..., made by so many processes.

  They end with this process. Raises TrainingError where one of them has died,
  and InputError where Grain, which starts them, is not installed.
  """
  try:
    import grain  # seconds to import: only who has workers waits for it
  except ImportError:
    raise InputError(
      f'data.workers={count} needs grain: pip install grain, or data.workers=0'
    ) from None

  if not flags.FLAGS.is_parsed():  # Grain reads its own, also in notebooks
    flags.FLAGS.mark_as_parsed()
  reading = grain.ReadOptions(_THREADS, prefetch_buffer_size=2 * _THREADS)
  steps = grain.MapDataset.range(start, sys.maxsize).map(batch)
  options = grain.MultiprocessingOptions(num_workers=count)
  return _of_workers(
    steps.to_iter_dataset(reading).mp_prefetch(options, end_with_parent)
  )


@contextlib.contextmanager
def apart() -> Iterator[None]:
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


def end_with_parent(*_) -> None:
  """Ends this worker process when the one that started it has ended."""

  def follow() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


def _of_workers(batches) -> Iterator[dict[str, np.ndarray]]:
  """Yields batches; raises TrainingError where a worker process has died."""
  with apart():
    iterator = iter(batches)
  try:
    with apart():
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
