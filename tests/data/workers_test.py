"""Processes that prepare pictures: how they end."""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from lasers_jax.data import open_source
from lasers_jax.data.pipeline import TrainPipeline
from lasers_jax.errors import TrainingError
from tests import tiny

ROOT = pathlib.Path(__file__).parent.parent.parent


def start_two(pictures):
  source = open_source(f'folder:{pictures}', 'train')
  return TrainPipeline(source, 4, size=tiny.SIDE, workers=2).iterate()


def test_a_worker_that_was_killed_is_named_and_signals_do_not_reach_any(
  pictures,
):
  batches = start_two(pictures)
  next(batches)
  first, _ = workers = multiprocessing.active_children()
  for worker in workers:  # As Ctrl-C and a scheduler do.
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1:
      os.kill(worker.pid, number)
  for _ in range(20):
    next(batches)
  first.kill()
  with pytest.raises(TrainingError, match=r'code -9 .*lower .*data.workers'):
    for _ in range(20):
      next(batches)
  for worker in multiprocessing.active_children():
    worker.kill()


def is_alive(pid: str) -> bool:
  try:
    status = pathlib.Path(f'/proc/{pid}/status').read_text()
  except FileNotFoundError:
    return False
  return 'State:\tZ' not in status  # dead, and nobody has asked how


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='reads /proc')
def test_workers_end_with_a_process_that_was_killed(pictures):
  code = (
    'import multiprocessing, pathlib, time\n'
    'from tests.data.workers_test import start_two\n'
    f'batches = start_two({str(pictures)!r})\n'
    'next(batches)\n'
    'workers = multiprocessing.active_children()\n'
    'print(*[worker.pid for worker in workers], flush=True)\n'
    'time.sleep(100)\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  workers = process.stdout.readline().split()
  assert len(workers) == 2
  assert all(map(is_alive, workers))
  process.kill()
  process.communicate()
  end = time.time() + 20
  while any(map(is_alive, workers)):
    assert time.time() < end, 'workers are left'
    time.sleep(0.05)
