"""Writes checkpoints in the background; skips damaged ones when it reads."""

import asyncio
import contextlib
import errno
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from lasers_jax.core.arrays import flat_names
from lasers_jax.core.patience import patience
from lasers_jax.core.storage import (
  absolute,
  is_outage,
  is_remote,
  one_line,
  remove,
  write_text,
)
from lasers_jax.errors import InputError
from lasers_jax.training.lease import Lease
from lasers_jax.training.state import TrainState

T = TypeVar('T')


class _Draining(asyncio.SelectorEventLoop):
  """An event loop that an error closes when all of its tasks have ended."""

  def close(self) -> None:
    # Of damage, the first read that fails ends the coroutine that Orbax waits
    # for. TensorStore reports the others to the loop, closed or not.
    failed = isinstance(sys.exc_info()[1], Exception)
    while failed and (tasks := asyncio.all_tasks(self)):
      everything = asyncio.gather(*tasks, return_exceptions=True)
      self.run_until_complete(everything)
    super().close()


@contextlib.contextmanager
def _all_reads_end():
  """Lets every read of a checkpoint end, where one fails."""
  usual = asyncio.new_event_loop
  asyncio.new_event_loop = _Draining
  try:
    yield
  finally:
    asyncio.new_event_loop = usual


@contextlib.contextmanager
def _without_notes():
  """Hides what Orbax notes of a reader: that it will not write."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


class _Manager(ocp.CheckpointManager):
  """A manager that leaves requests to stop to the run.

  JAX counts the calls that ask for them, and this class would ask by steps in
  between: the one at which all processes stop could be missed.
  """

  def reached_preemption(self, step: int) -> bool:
    return False


# How often a reader begins anew, beside a run that removes what it reads.
_CHANGES = 30


class Checkpoints:
  """The checkpoints of a workdir, one folder a step.

  Use it as a context: leaving it waits for what is being written. Every
  process of a run makes the same calls.
  """

  @_without_notes()
  def __init__(
    self,
    workdir: str,
    max_to_keep: int = 2,
    read_only: bool = False,
    lease: Lease | None = None,
  ):
    """Opens the checkpoints.

    Args:
      max_to_keep: older ones are removed.
      read_only: nothing is written, and nothing set aside.
      lease: of the workdir; nothing is written once another run has it.
    """
    self._directory = os.path.join(absolute(workdir), 'checkpoints')
    self._read_only, self._lease = read_only, lease
    # Folders at once: where one is refused, threads that wait for it would keep
    # the program for five minutes.
    options = ocp.CheckpointManagerOptions(
      max_to_keep=max_to_keep,
      read_only=read_only,
      async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
    )
    with _clear_store_errors(self._directory):
      self._manager = _listing(
        lambda: _Manager(
          self._directory,
          options=options,
          item_handlers=ocp.StandardCheckpointHandler(),
        )
      )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind, error, trace) -> None:
    # What is being written must not hide the error that ends the run.
    try:
      self.wait()
    except Exception:
      if kind is None:
        raise
    finally:
      self._manager.close()

  @property
  def steps(self) -> list[int]:
    """Returns the steps that have a checkpoint, ascending."""
    return sorted(self._manager.all_steps())

  def save(self, state: TrainState) -> None:
    """Starts to write the state; returns when it may be donated.

    Raises:
      InputError: the disk is full, or cannot be written (also for an earlier
        write).
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self.wait()
    if self._lease:
      self._lease.check()
    # Checked first: a write that fails half-way leaves more than one line.
    with _clear_disk_errors(self._directory):
      room = not is_remote(self._directory)
      if room and shutil.disk_usage(self._directory).free < _bytes(state):
        raise _full(self._directory)
      self._manager.save(step, args=ocp.args.StandardSave(_sealed(state)))

  def wait(self) -> None:
    """Waits for the write under way, and raises what went wrong with it."""
    with (
      _clear_disk_errors(self._directory),
      patience(f'{self._directory} is being written'),
    ):
      self._manager.wait_until_finished()
      self._manager.check_for_errors()

  @_all_reads_end()
  def restore(
    self, target: TrainState, step: int | None = None
  ) -> TrainState | None:
    """Reads the newest checkpoint that is whole, or the one of a step.

    Damaged ones are skipped with a warning and, unless this is read-only, moved
    to `checkpoints-damaged`. In a bucket, where that would copy them, the mark
    of a finished one gives way to damaged.txt.

    Args:
      target: the state's shapes, dtypes and shardings (jax.ShapeDtypeStruct).
      step: the step to read; None tries all from the newest on.

    Returns:
      The state on the target's devices; None where there is no checkpoint.

    Raises:
      InputError: there is no checkpoint of that step, it is of another model,
        or none is whole.
    """
    damaged, changes = set(), 0
    while (newest := self._newest(step, damaged)) is not None:
      self._check_shapes(newest, target)
      try:
        return self._read(newest, target)
      except Exception as error:  # Orbax raises many kinds for damage.
        reason, cause = one_line(error)[:120], error
      if is_remote(self._directory) and is_outage(cause):
        raise _unread(self._directory, cause) from cause
      self._list_anew()
      if self._newest(step, damaged) != newest:
        # A run that saves there has just removed it.
        changes += 1
        if changes < _CHANGES:
          continue
        raise InputError(
          f'a run replaces the checkpoints in {self._directory} faster than '
          'they can be read: try again when it has ended'
        ) from cause
      if step is not None:
        raise InputError(
          f'the checkpoint of step {step} is damaged: {reason}'
        ) from cause
      self._set_aside(newest, reason)
      damaged.add(newest)
    if damaged:
      raise InputError(f'every checkpoint in {self._directory} was damaged')
    return None

  def _newest(self, step: int | None, damaged: set[int]) -> int | None:
    """Returns the step to try: the requested one, or the newest that is left.

    Raises:
      InputError: there is no checkpoint of the requested step.
    """
    # A listing may miss all, where a run adds some and removes others.
    for _ in range(_CHANGES * self._read_only):
      if set(self.steps) - damaged:
        break
      self._list_anew()
    if step is not None and step not in self.steps:
      raise InputError(
        f'no checkpoint of step {step} in {self._directory}; there are: '
        f'{self.steps}'
      )
    left = set(self.steps) - damaged if step is None else {step}
    return max(left, default=None)

  def _list_anew(self) -> None:
    with _clear_store_errors(self._directory):
      _listing(self._manager.reload)

  def _read(self, step: int, target: TrainState) -> TrainState:
    args = ocp.args.StandardRestore(_sealed(target))
    item = self._manager.restore(step, args=args)
    sums = jax.device_get(_checksums(item['state']))
    if (sums != jax.device_get(item['checksums'])).any():
      raise ValueError('checksums differ')
    state = item['state']
    return state.replace(key=jax.random.wrap_key_data(state.key))

  def _check_shapes(self, step: int, target: TrainState) -> None:
    """Raises InputError where a checkpoint is of another model."""
    try:
      stored = _shapes(self._manager.item_metadata(step)['state'])
    except Exception:  # Damage, which `restore` deals with.
      return
    expected = _shapes(_sealed(target)['state'])
    if not stored or stored == expected:
      return
    for name in sorted(stored.keys() | expected.keys()):
      if stored.get(name) != expected.get(name):
        raise InputError(
          f'the checkpoint of step {step} is of another model: {name} is '
          f'{stored.get(name, "missing")} there and '
          f'{expected.get(name, "missing")} in the config'
        )

  def _set_aside(self, step: int, reason: str) -> None:
    logging.warning(
      'checkpoint of step %d is damaged and skipped (%s)', step, reason
    )
    if self._read_only:
      return
    if jax.process_index() == 0:
      act = _unmark if is_remote(self._directory) else _move_aside
      act(self._directory, step, reason)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('set aside')
    self._list_anew()


def _move_aside(directory: str, step: int, _: str) -> None:
  aside = directory + '-damaged'
  os.makedirs(aside, exist_ok=True)
  target = os.path.join(aside, str(step))
  shutil.rmtree(target, ignore_errors=True)
  os.rename(os.path.join(directory, str(step)), target)


def _unmark(directory: str, step: int, reason: str) -> None:
  """Makes a checkpoint in a bucket an unfinished one, which is overwritten."""
  folder = os.path.join(directory, str(step))
  write_text(os.path.join(folder, 'damaged.txt'), reason + '\n')
  remove(os.path.join(folder, ocp.path.atomicity.COMMIT_SUCCESS_FILE))


def _listing(act: Callable[[], T]) -> T:
  """Lists a folder, anew where a run removes what has just been listed."""
  for _ in range(_CHANGES):
    with contextlib.suppress(FileNotFoundError):
      return act()
  return act()


def _sealed(state: TrainState) -> dict:
  """Returns what a file stores: the state, its key as integers, checksums.

  TensorStore does not notice a changed byte in an array that it reads.
  """
  if not isinstance(state.key, jax.ShapeDtypeStruct):
    state = state.replace(key=jax.random.key_data(state.key))
    return {'state': state, 'checksums': _checksums(state)}
  home = state.key.sharding
  raw = jax.eval_shape(jax.random.key_data, state.key)
  key = jax.ShapeDtypeStruct(raw.shape, raw.dtype, sharding=home)
  state = state.replace(key=key)
  sums = jax.eval_shape(_checksums, state)
  sums = jax.ShapeDtypeStruct(sums.shape, sums.dtype, sharding=home)
  return {'state': state, 'checksums': sums}


@jax.jit
def _checksums(state: TrainState) -> jax.Array:
  """Sums the words of each array, modulo 2^32: uint32 [arrays]."""
  words = [
    jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    for leaf in jax.tree.leaves(state)
  ]
  return jnp.stack([jnp.sum(word, dtype=jnp.uint32) for word in words])


def _shapes(tree) -> dict[str, tuple[int, ...]]:
  """Returns the shape of each array by its path."""
  return {name: tuple(x.shape) for name, x in flat_names(tree).items()}


@contextlib.contextmanager
def _clear_store_errors(directory: str):
  """Turns the errors of a bucket that gives nothing for now into one."""
  try:
    yield
  except Exception as error:
    if is_remote(directory) and is_outage(error):
      raise _unread(directory, error) from error
    raise


def _unread(directory: str, error: Exception) -> InputError:
  return InputError(f'{directory} cannot be read now: {one_line(error)}')


@contextlib.contextmanager
def _clear_disk_errors(directory: str):
  """Turns the many forms of a disk that cannot be written into one error."""
  try:
    yield
  except Exception as error:
    text, number = str(error), getattr(error, 'errno', None)
    found = re.search(r'OS error (\d+)', text)  # as TensorStore has it
    number = int(found[1]) if found else number
    full = number in (errno.ENOSPC, errno.EDQUOT)
    if full or 'No space left' in text or 'quota' in text:
      raise _full(directory) from error
    if is_remote(directory) and is_outage(error):
      raise InputError(
        f'no checkpoint could be written to {directory}: {one_line(error)}; '
        'complete ones are kept; run the same command when it can be'
      ) from error
    if number:
      raise InputError(
        f'no checkpoint could be written to {directory}: {os.strerror(number)};'
        ' complete ones are kept; repair it and run the same command'
      ) from error
    raise


def _full(directory: str) -> InputError:
  return InputError(
    f'the disk is full: no checkpoint could be written to {directory}; the '
    'last complete one is kept; make room and run the same command'
  )


def _bytes(state: TrainState) -> int:
  """Counts the bytes of a state, over all devices, each array once."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(state))
