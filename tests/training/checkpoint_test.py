import asyncio
import errno
import functools
import os
import pathlib
import shutil
import threading

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.experimental import multihost_utils

from lasers_jax.core import sharding
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings
from lasers_jax.training import checkpoint
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.state import state_shapes
from tests import tiny


def target(**changes):
  run = settings.from_config(tiny.config('unused', **changes))
  mesh = sharding.make_mesh(data=1)
  shapes = state_shapes(
    run.model, make_optimizer(run.optimizer, run.steps), tiny.SIDE
  )
  places = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
  return sharding.with_shardings(shapes, places)


@pytest.fixture(scope='module')
def whole():
  return target()


def restore(workdir, whole, step=None, read_only=False):
  with Checkpoints(str(workdir), read_only=read_only) as checkpoints:
    return checkpoints.restore(whole, step)


def data_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files that hold arrays; which of them are read is up to TensorStore."""
  files = [path for path in folder.rglob('d/*') if path.is_file()]
  assert files
  return files


def flip_bytes(folder):
  for file in data_files(folder):
    data = bytearray(file.read_bytes())
    data[::500] = [byte ^ 255 for byte in data[::500]]
    file.write_bytes(data)


def cut_off(folder):
  for file in data_files(folder):
    os.truncate(file, file.stat().st_size // 2)


def lose_the_data(folder):
  for file in data_files(folder):
    file.unlink()


def lose_the_metadata(folder):
  shutil.rmtree(folder / 'default')


DAMAGES = [flip_bytes, cut_off, lose_the_data, lose_the_metadata]


def test_the_newest_comes_back_bit_for_bit(tiny_run, whole):
  state = restore(tiny_run.workdir, whole, read_only=True)
  tiny.assert_identical(tiny.on_host(state), tiny_run.state)


def test_a_chosen_step_comes_back(tiny_run, whole):
  assert restore(tiny_run.workdir, whole, 4, read_only=True).step == 4


def test_no_checkpoint_is_none(tmp_path, whole):
  assert restore(tmp_path, whole) is None


def test_a_step_that_is_not_there_is_an_error(tiny_run, whole):
  with pytest.raises(InputError, match=r'no checkpoint of step 5 .*\[4, 6\]'):
    restore(tiny_run.workdir, whole, 5, read_only=True)


def test_one_wrong_bit_is_noticed(tiny_run, tmp_path, whole, monkeypatch, log):
  state = restore(tiny_run.workdir, whole, read_only=True)
  sealed = checkpoint._sealed(state)
  wrong = np.array(state.params['encoder']['Conv_0']['kernel'])
  wrong.view(np.uint32)[0, 0, 0, 0] ^= 1
  sealed['state'].params['encoder']['Conv_0']['kernel'] = wrong
  monkeypatch.setattr(checkpoint, '_sealed', lambda _: sealed)
  with Checkpoints(str(tmp_path)) as checkpoints:
    checkpoints.save(state)
  monkeypatch.undo()
  with pytest.raises(InputError, match='damaged'):
    restore(tmp_path, whole)
  assert 'damaged and skipped (checksums differ)' in log[0]


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_one_is_passed_over(copied_run, whole, log, damage):
  damage(copied_run / 'checkpoints' / '6')
  assert restore(copied_run, whole).step == 4
  assert len(log) == 1, log
  assert 'checkpoint of step 6 is damaged and skipped (' in log[0]
  assert tiny.checkpoints(copied_run) == [4]
  assert (copied_run / 'checkpoints-damaged' / '6').exists()


def test_writing_does_not_ask_whether_to_stop(
  tiny_run, tmp_path, whole, monkeypatch
):
  asked = []
  monkeypatch.setattr(
    multihost_utils, 'reached_preemption_sync_point', asked.append
  )
  state = restore(tiny_run.workdir, whole, read_only=True)
  with Checkpoints(str(tmp_path)) as checkpoints:
    checkpoints.save(state)
    checkpoints.wait()
    assert checkpoints.steps == [6]
  assert asked == []


def test_reads_that_end_after_the_one_that_failed_are_waited_for():
  ended = []

  async def fail():
    raise ValueError

  async def end_late():
    loop = asyncio.get_running_loop()
    late = loop.create_future()
    # As TensorStore does, from a thread of its own.
    report = functools.partial(loop.call_soon_threadsafe, late.set_result, 1)
    threading.Timer(0.2, report).start()
    ended.append(await late)

  async def read_all():
    await asyncio.gather(fail(), end_late())

  with checkpoint._all_reads_end():
    loop = asyncio.new_event_loop()
    with pytest.raises(ValueError):
      try:
        loop.run_until_complete(read_all())
      finally:
        loop.close()
  assert ended == [1]
  assert asyncio.new_event_loop is asyncio.events.new_event_loop


def test_reading_alone_moves_nothing(copied_run, whole, log):
  flip_bytes(copied_run / 'checkpoints' / '6')
  assert restore(copied_run, whole, read_only=True).step == 4
  assert len(log) == 1
  assert tiny.checkpoints(copied_run) == [4, 6]


def test_a_half_written_one_is_no_checkpoint(copied_run, whole):
  folder = copied_run / 'checkpoints'
  (folder / '6').rename(folder / '6.orbax-checkpoint-tmp')
  assert restore(copied_run, whole).step == 4


def test_the_step_asked_for_is_never_replaced(copied_run, whole):
  flip_bytes(copied_run / 'checkpoints' / '6')
  with pytest.raises(InputError, match='step 6 is damaged: '):
    restore(copied_run, whole, 6)


def test_when_all_are_damaged_the_run_stops(copied_run, whole):
  for step in '4', '6':
    flip_bytes(copied_run / 'checkpoints' / step)
  with pytest.raises(InputError, match='every checkpoint in .* was damaged'):
    restore(copied_run, whole)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (
      dict(bottleneck__K=32),
      r'another model: codebook/bottleneck/coefficients/sizes is \(16,\) there '
      r'and \(32,\)',
    ),
    (
      dict(network__residual_blocks=1),
      r'another model: .*ResidualStack.*kernel is missing there and \(',
    ),
  ],
)
def test_another_model_is_named_and_nothing_moved(copied_run, changes, said):
  with pytest.raises(InputError, match=said):
    restore(copied_run, target(**changes))
  assert tiny.checkpoints(copied_run) == [4, 6]


def test_the_last_ones_are_kept(tiny_run, tmp_path, whole):
  state = restore(tiny_run.workdir, whole, read_only=True)
  with Checkpoints(str(tmp_path), max_to_keep=2) as checkpoints:
    for step in 7, 8, 9:
      checkpoints.save(state.replace(step=np.int32(step)))
    checkpoints.save(state.replace(step=np.int32(9)))  # A second time.
  assert tiny.checkpoints(tmp_path) == [8, 9]


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.ENOSPC, 'No space left on device'),
    OSError(errno.EDQUOT, 'Disk quota exceeded'),
    ValueError('RESOURCE_EXHAUSTED: write failed: No space left on device'),
  ],
)
@pytest.mark.parametrize('method', ['save', 'wait_until_finished'])
def test_a_full_disk_is_one_clear_error(
  copied_run, whole, monkeypatch, error, method
):
  def fail(*_, **__):
    raise error

  with (
    pytest.raises(InputError, match='the disk is full.*last complete one'),
    Checkpoints(str(copied_run)) as checkpoints,
  ):
    state = checkpoints.restore(whole)
    with monkeypatch.context() as patch:
      patch.setattr(ocp.CheckpointManager, method, fail)
      checkpoints.save(state.replace(step=np.int32(7)))
      checkpoints.wait()
  assert restore(copied_run, whole, 6).step == 6


@pytest.mark.parametrize(
  ('error', 'said'),
  [
    (OSError(errno.EIO, 'Input/output error'), 'Input/output error'),
    (OSError(errno.EROFS, 'Read-only file system', 'a'), 'Read-only file'),
    (PermissionError(errno.EACCES, 'Permission denied'), 'Permission denied'),
    (FileNotFoundError(errno.ENOENT, 'No such file'), 'No such file or direc'),
    (ValueError('PERMISSION_DENIED: [OS error 13: EACCES x]'), 'Permission d'),
  ],
)
@pytest.mark.parametrize('method', ['save', 'wait_until_finished'])
def test_a_disk_that_cannot_be_written_is_named(
  copied_run, whole, monkeypatch, error, said, method
):
  def fail(*_, **__):
    raise error

  folder = copied_run / 'checkpoints'
  with (
    pytest.raises(InputError, match=f'written to {folder}: {said}.*; complete'),
    Checkpoints(str(copied_run)) as checkpoints,
  ):
    state = checkpoints.restore(whole)
    with monkeypatch.context() as patch:
      patch.setattr(ocp.CheckpointManager, method, fail)
      checkpoints.save(state.replace(step=np.int32(7)))
      checkpoints.wait()


def test_a_removed_workdir_is_named(copied_run, whole):
  with (
    pytest.raises(InputError, match='No such file or directory'),
    Checkpoints(str(copied_run)) as checkpoints,
  ):
    state = checkpoints.restore(whole)
    shutil.rmtree(copied_run)
    checkpoints.save(state.replace(step=np.int32(7)))


def test_a_defect_is_not_hidden(copied_run, whole, monkeypatch):
  def fail(*_, **__):
    raise ValueError('shapes differ')

  with Checkpoints(str(copied_run)) as checkpoints:
    state = checkpoints.restore(whole)
    monkeypatch.setattr(ocp.CheckpointManager, 'save', fail)
    with pytest.raises(ValueError, match='^shapes differ'):
      checkpoints.save(state.replace(step=np.int32(7)))


def replaced_while_read(monkeypatch, folder, times):
  """A run that saves a newer checkpoint, and removes the one that is read."""
  read, left = Checkpoints._read, list(range(times))

  def replaced(self, step, target):
    if left:
      left.pop()
      shutil.copytree(folder / str(step), folder / 'next')
      shutil.rmtree(folder / str(step))
      (folder / 'next').rename(folder / str(step + 1))
    return read(self, step, target)

  monkeypatch.setattr(Checkpoints, '_read', replaced)


def test_one_that_a_run_removes_is_not_damaged(
  copied_run, whole, monkeypatch, log
):
  folder = copied_run / 'checkpoints'
  shutil.rmtree(folder / '4')
  replaced_while_read(monkeypatch, folder, times=3)
  state = restore(copied_run, whole, read_only=True)
  assert tiny.checkpoints(copied_run) == [9]
  assert state.step == 6  # of the copy
  assert log == []


def test_those_that_come_and_go_too_fast_are_one_error(
  copied_run, whole, monkeypatch, log
):
  monkeypatch.setattr(checkpoint, '_CHANGES', 3)
  replaced_while_read(monkeypatch, copied_run / 'checkpoints', times=3)
  with pytest.raises(InputError, match='faster than they can be read'):
    restore(copied_run, whole, read_only=True)
  assert log == []


def test_the_step_asked_for_may_be_removed(copied_run, whole, monkeypatch):
  replaced_while_read(monkeypatch, copied_run / 'checkpoints', times=1)
  with pytest.raises(InputError, match=r'no checkpoint of step 6 .*\[4, 7\]'):
    restore(copied_run, whole, 6, read_only=True)


def test_a_listing_is_repeated(copied_run, whole, monkeypatch):
  load = ocp.CheckpointManager._load_checkpoint_infos
  # What a run removes is listed and gone; or all that is listed is gone.
  replies = [FileNotFoundError('gone'), []]

  def listed(self, **options):
    reply = replies.pop(0) if replies else load(self, **options)
    if isinstance(reply, Exception):
      raise reply
    return reply

  monkeypatch.setattr(ocp.CheckpointManager, '_load_checkpoint_infos', listed)
  assert restore(copied_run, whole, read_only=True).step == 6
  assert not replies


def test_a_reader_is_not_told_that_it_only_reads(tiny_run, caplog):
  with Checkpoints(str(tiny_run.workdir), read_only=True) as checkpoints:
    assert checkpoints.steps == [4, 6]
  assert caplog.messages == []
