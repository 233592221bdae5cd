"""A run's folder: one process at a time, one config for life."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator

import jax
import numpy as np

from lasers_jax.errors import InputError
from lasers_jax.files import written_whole

CONFIG = 'config.json'

# Keys that may change when a run goes on: none of them changes the numbers.
# `steps` does, but only from here on, and by the user's wish.
_MAY_CHANGE = (
  'steps',
  'mesh',
  'data.workers',
  'log_every',
  'evaluate_every',
  'checkpoint_every',
  'checkpoints_kept',
  'evaluation',
  'tensorboard',
)


@contextlib.contextmanager
def hold(workdir: str, config: dict) -> Iterator[None]:
  """Holds a workdir for this run alone, and keeps its config there.

  The hold ends with the process, however that ends. In a run of several
  processes the first one holds it for all.

  Raises:
    InputError: the workdir cannot be written, another process trains in it,
      or it is of another config.
  """
  if jax.process_index():
    yield
    return
  try:
    os.makedirs(workdir, exist_ok=True)
    lock = open(os.path.join(workdir, '.lock'), 'a')
  except OSError as error:
    raise InputError(
      f'the workdir cannot be written: {error.strerror}: {workdir}'
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise InputError(
        f'another process is training in {workdir}; wait for it, end it, or '
        'choose another --workdir'
      ) from error
    _keep_config(workdir, config)
    yield


def _keep_config(workdir: str, config: dict) -> None:
  """Writes the config of a new run; compares it where a run goes on."""
  path = os.path.join(workdir, CONFIG)
  if os.path.exists(path):
    check_config(workdir, config)
  write_text(path, json.dumps(config, indent=2) + '\n')


def check_config(workdir: str, config: dict) -> None:
  """Raises InputError where a workdir is of a run with other numbers."""
  old, new = _flat(load_config(workdir)), _flat(_plain(config))
  for key in sorted(old.keys() | new.keys()):
    if old.get(key) != new.get(key) and not key.startswith(_MAY_CHANGE):
      raise InputError(
        f'{workdir} is of another config: {key} is {old.get(key)!r} there '
        f'and {new.get(key)!r} here; choose another --workdir'
      )


def load_config(workdir: str) -> dict:
  """Reads the config of a workdir.

  Raises:
    InputError: there is none, or it is not readable.
  """
  path = os.path.join(workdir, CONFIG)
  try:
    with open(path) as file:
      return json.load(file)
  except (OSError, ValueError) as error:
    raise InputError(f'{workdir} is no workdir of a run: {error}') from error


def save_failure(
  workdir: str, step: int, term: str, batch: dict[str, np.ndarray]
) -> str:
  """Keeps the batch of a step whose loss was not finite; returns the path.

  Of several processes each keeps its own rows: failure-STEP-PROCESS.npz.
  """
  process = f'-{jax.process_index()}' if jax.process_count() > 1 else ''
  path = os.path.join(workdir, f'failure-{step}{process}.npz')
  np.savez(path, step=step, term=term, **batch)
  return path


def write_text(path: str, text: str) -> None:
  """Writes a file whole or not at all."""
  with written_whole(path, 'w') as file:
    file.write(text)


def _plain(config: dict) -> dict:
  """The config as JSON would give it back: tuples become lists."""
  return json.loads(json.dumps(config))


def _flat(config: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in config.items():
    if isinstance(value, dict):
      flat.update(_flat(value, f'{prefix}{key}.'))
    else:
      flat[prefix + key] = value
  return flat
