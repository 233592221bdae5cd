"""The folder of a run: one process at a time, one config for ever."""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lasers_jax.core import storage
from lasers_jax.core.arrays import write_arrays
from lasers_jax.core.storage import check_folder, write_text
from lasers_jax.errors import InputError, shown
from lasers_jax.training.lease import Lease, hold

CONFIG = 'config.json'
FORMAT = 1  # of the files beside the config: other formats are not read
FINGERPRINTS = 'data.json'

# Keys that may change when a run goes on: none of them changes results, except
# `steps`, and that only from here on.
_MAY_CHANGE = (
  'steps',
  'mesh',
  'network.pretrained',  # its hash may not
  'data.workers',
  'log_every',
  'evaluate_every',
  'checkpoint_every',
  'checkpoints_kept',
  'evaluation',
  'tensorboard',
)
# Orbax takes the path of a checkpoint as a pattern, a backslash as a slash and
# gs:/ as a bucket: it does not find again what it writes there.
_LOST_IN_PATHS = '*', '?', '[', '\\', '/gs:/'


class Run(NamedTuple):
  """The config and the data by which a run belongs to its workdir.

  Attributes:
    config: nested dictionaries, as the user gave them.
    with_defaults: fills in the defaults of a config; an older config may lack
      keys that came later.
    fingerprints: of the images of each split that was opened; see `data`.
  """

  config: Mapping[str, Any]
  with_defaults: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
  fingerprints: Mapping[str, Mapping[str, Any]] = {}


def locate(path: str) -> str:
  """Returns the absolute path of a workdir, or its address in a bucket.

  Raises:
    InputError: checkpoints could not be read back from such a path.
  """
  path = storage.absolute(path)
  if path.startswith('s3://'):
    raise InputError(
      f'no checkpoint can be kept in {path}, since Orbax writes to folders and '
      'gs:// alone: choose such a workdir; a model can be exported to s3://'
    )
  if storage.is_remote(path):
    return path
  for bad in _LOST_IN_PATHS:
    if bad in f'{path}/':
      raise InputError(
        f'no checkpoint can be read back from a path with {bad} in it: choose '
        f'another workdir than {path}'
      )
  try:
    path.encode()
  except UnicodeEncodeError as error:
    shown = path.encode('utf-8', 'backslashreplace').decode()
    # The same bytes may be letters in another locale.
    utf8 = sys.getfilesystemencoding() == 'utf-8'
    remedy = 'choose another workdir than' if utf8 else 'set PYTHONUTF8=1 for'
    raise InputError(
      'no checkpoint can be read back from a path that is no UTF-8: '
      f'{remedy} {shown}'
    ) from error
  return path


@contextlib.contextmanager
def lock_workdir(workdir: str, run: Run) -> Iterator[Lease | None]:
  """Holds the lease of a workdir, and writes its config and data there.

  The first of several processes holds it for all; the others get None.

  Raises:
    InputError: the workdir cannot be written, another process trains in it,
      or it is of another config.
  """
  if jax.process_index():
    yield None
    return
  check_folder(workdir, 'choose another --workdir')
  with hold(workdir) as lease:
    _write_run(workdir, run)
    yield lease


def _write_run(workdir: str, run: Run) -> None:
  """Writes the config and data of a new run; compares those of an old one."""
  if storage.exists(os.path.join(workdir, CONFIG)):
    check_config(workdir, run)
    check_fingerprints(workdir, run.fingerprints)
  write_config(workdir, run.config)
  if run.fingerprints:
    known = {**load_fingerprints(workdir), **run.fingerprints}
    text = json.dumps(known, indent=2) + '\n'
    write_text(os.path.join(workdir, FINGERPRINTS), text)


def check_config(workdir: str, run: Run) -> None:
  """Raises InputError where a workdir is of a run with other results.

  The same images under another name are no difference.
  """
  stored, given = load_config(workdir), run.config
  old, new = (_flat(_plain(run.with_defaults(x))) for x in (stored, given))
  known = load_fingerprints(workdir)
  moved = run.fingerprints and all(
    known.get(split) == now for split, now in run.fingerprints.items()
  )
  for key in sorted(old.keys() | new.keys()):
    if old.get(key) == new.get(key) or key.startswith(_MAY_CHANGE):
      continue
    if key == 'data.name' and moved:
      logging.info('the images of %s are now in %s', old[key], new[key])
      continue
    raise InputError(
      f'{workdir} is of another config: {key} is {old.get(key)!r} there '
      f'and {new.get(key)!r} here; choose another --workdir'
    )


def check_fingerprints(
  workdir: str, fingerprints: Mapping[str, Mapping[str, Any]]
) -> None:
  """Logs a warning for each split whose list of images has changed."""
  known = load_fingerprints(workdir)
  for split, now in fingerprints.items():
    before = known.get(split, now)
    if before != now:
      logging.warning(
        'the images of the split %r are not those with which the run last '
        'began: %s then, %s now, by their names and sizes', split,
        before.get('count'), now.get('count'),
      )  # fmt: skip


def load_fingerprints(workdir: str) -> dict[str, Any]:
  """Reads the fingerprints of the splits; {} where they are not known."""
  try:
    data = storage.read_bytes(os.path.join(workdir, FINGERPRINTS))
  except OSError:
    return {}
  try:
    known = json.loads(data)
  except ValueError:
    return {}
  if not isinstance(known, dict):
    return {}
  return {k: v for k, v in known.items() if isinstance(v, dict)}


def write_config(folder: str, config: Mapping[str, Any]) -> None:
  """Writes a config, with the format of the files beside it."""
  text = json.dumps({'format': FORMAT, **config}, indent=2)
  write_text(os.path.join(folder, CONFIG), text + '\n')


def load_config(folder: str) -> dict:
  """Reads the config of a workdir or of an exported model.

  Raises:
    InputError: there is none, it is not readable, or of another format.
  """
  path = os.path.join(folder, CONFIG)
  try:
    config = json.loads(storage.read_bytes(path))
  except (OSError, ValueError) as error:
    raise InputError(f'{folder} is no workdir of a run: {error}') from error
  if not isinstance(config, dict):
    raise InputError(f'{folder} is no workdir of a run: {CONFIG} is no object')
  if '_class_name' in config:
    raise InputError(f'{folder} is of diffusers: name it as diffusers:{folder}')
  number = config.pop('format', None)
  if number != FORMAT:
    written = (
      'before formats had numbers'
      if number is None
      else f'in format {shown(number)}'
    )
    raise InputError(
      f'{folder} was written {written}, and this release reads format '
      f'{FORMAT}: use the release that wrote it, or train again'
    )
  return config


def save_failure(
  workdir: str, step: int, term: str, batch: dict[str, np.ndarray]
) -> str:
  """Writes the batch of a step whose loss is not finite; returns the path.

  Each of several processes writes its own rows: failure-STEP-PROCESS.npz.
  """
  process = f'-{jax.process_index()}' if jax.process_count() > 1 else ''
  path = os.path.join(workdir, f'failure-{step}{process}.npz')
  write_arrays(path, {'step': np.array(step), 'term': np.array(term), **batch})
  return path


def _plain(config: dict) -> dict:
  """Returns the config as JSON reads it back: tuples become lists."""
  return json.loads(json.dumps(config, default=str))


def _flat(config: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in config.items():
    if isinstance(value, dict):
      flat.update(_flat(value, f'{prefix}{key}.'))
    else:
      flat[prefix + key] = value
  return flat
