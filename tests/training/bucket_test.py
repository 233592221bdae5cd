"""Checkpoints and workdirs in a bucket."""

import threading
import types

import jax
import numpy as np
import pytest

from lasers_jax.core import sharding, storage
from lasers_jax.errors import InputError, TrainingError
from lasers_jax.experiment import settings
from lasers_jax.training import workdir
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.monitor import Monitor
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.state import state_shapes
from tests import stores, tiny


@pytest.fixture(scope='module')
def whole():
  run = settings.from_config(tiny.config('unused'))
  shapes = state_shapes(
    run.model, make_optimizer(run.optimizer, run.steps), tiny.SIDE
  )
  home = sharding.replicated(sharding.make_mesh(data=1))
  places = jax.tree.map(lambda _: home, shapes)
  return sharding.with_shardings(shapes, places)


@pytest.fixture
def run(tiny_run, gs_folder):
  """A copy of the finished run, with checkpoints of the steps 4 and 6."""
  return stores.upload(tiny_run.workdir, gs_folder)


def damage(run, step):
  """Changes bytes of what holds arrays; which is read is up to TensorStore."""
  found = objects(f'{run}/checkpoints/{step}')
  files = [file for file in found if '/d/' in file]
  assert files
  for file in files:
    data = bytearray(storage.read_bytes(file))
    data[::500] = [byte ^ 255 for byte in data[::500]]
    with storage.written_whole(file) as changed:
      changed.write(data)


def objects(folder):
  for name in storage.names(folder):
    path = f'{folder}/{name}'
    if storage.is_folder(path):
      yield from objects(path)
    else:
      yield path


def test_the_newest_comes_back_bit_for_bit(run, whole, tiny_run):
  with Checkpoints(run, read_only=True) as checkpoints:
    state = checkpoints.restore(whole)
  tiny.assert_identical(tiny.on_host(state), tiny_run.state)


def test_a_damaged_one_is_passed_over_and_replaced(run, whole, log, tiny_run):
  damage(run, 6)
  with Checkpoints(run, read_only=True) as checkpoints:
    assert checkpoints.restore(whole).step == 4
  with Checkpoints(run) as checkpoints:
    state = checkpoints.restore(whole)
    assert state.step == 4
    assert checkpoints.steps == [4]
    said = storage.read_text(f'{run}/checkpoints/6/damaged.txt')
    assert said.strip() in log[-1]
    # As the run that goes on does, by way of a step of its own.
    checkpoints.save(state.replace(step=np.int32(5)))
    checkpoints.save(state.replace(step=np.int32(6)))
    checkpoints.wait()
  with Checkpoints(run) as checkpoints:
    assert checkpoints.steps == [5, 6]
    assert checkpoints.restore(whole).step == 6
  assert not storage.exists(f'{run}/checkpoints/6/damaged.txt')


def test_one_that_was_broken_off_is_no_checkpoint(run, whole):
  storage.remove(f'{run}/checkpoints/6/commit_success.txt')
  with Checkpoints(run) as checkpoints:
    assert checkpoints.steps == [4]
    assert checkpoints.restore(whole).step == 4


@pytest.fixture
def forbidden():
  """Parts of the paths of objects that the store refuses."""
  yield stores.FORBIDDEN
  stores.FORBIDDEN.clear()


@pytest.mark.parametrize(
  'part', ['/d/', 'manifest', '_METADATA'], ids=['arrays', 'index', 'sizes']
)
def test_what_is_refused_now_is_not_damaged(run, whole, forbidden, part, log):
  forbidden.add(part)
  with (
    pytest.raises(InputError, match='checkpoints cannot be read now: '),
    Checkpoints(run) as checkpoints,
  ):
    checkpoints.restore(whole)
  forbidden.clear()
  with Checkpoints(run) as checkpoints:
    assert checkpoints.restore(whole).step == 6
  assert log == []


@pytest.mark.parametrize(
  'part', ['/7/default', 'commit_success'], ids=['arrays', 'mark']
)
def test_a_write_that_is_refused_is_one_line(run, whole, forbidden, part):
  before = set(threading.enumerate())
  with pytest.raises(InputError) as error, Checkpoints(run) as checkpoints:
    state = checkpoints.restore(whole)
    forbidden.add(part)
    checkpoints.save(state.replace(step=np.int32(7)))
    checkpoints.wait()
  forbidden.clear()
  said = str(error.value)
  assert said.startswith(f'no checkpoint could be written to {run}/checkpoi')
  assert '\n' not in said
  # Nothing keeps the program from its end.
  assert all(x.daemon for x in set(threading.enumerate()) - before)
  with Checkpoints(run) as checkpoints:
    assert checkpoints.steps == [4, 6]
    assert checkpoints.restore(whole).step == 6


def test_who_lost_the_lease_saves_nothing(run, whole):
  def lost():
    raise TrainingError('taken over')

  lease = types.SimpleNamespace(check=lost)
  with Checkpoints(run, lease=lease) as checkpoints:
    state = checkpoints.restore(whole)
    with pytest.raises(TrainingError, match='taken over'):
      checkpoints.save(state.replace(step=np.int32(7)))
    assert checkpoints.steps == [4, 6]


def test_a_workdir_keeps_its_config_and_data(gs_folder):
  config = tiny.config('somewhere')
  run = workdir.Run(config, fingerprints={'train': {'count': 3}})
  for _ in range(2):
    with workdir.lock_workdir(gs_folder, run):
      pass
  assert workdir.load_config(gs_folder) == config
  assert workdir.load_fingerprints(gs_folder) == {'train': {'count': 3}}
  other = workdir.Run(tiny.config('somewhere', seed=1))
  with (
    pytest.raises(InputError, match='seed is 0 there and 1 here'),
    workdir.lock_workdir(gs_folder, other),
  ):
    pass


def test_the_batch_of_a_failure_is_kept(gs_folder):
  images = tiny.images(2)
  path = workdir.save_failure(gs_folder, 7, 'pixel', {'image': images})
  with storage.as_local(path) as copy, np.load(copy) as kept:
    np.testing.assert_array_equal(kept['image'], images)
    assert (kept['step'], kept['term']) == (7, 'pixel')


def test_tensorboard_is_refused_in_a_line(gs_folder, log):
  run = types.SimpleNamespace(
    steps=1, batch_size=1, log_every=1, tensorboard=True
  )
  with Monitor(gs_folder, run, 0) as monitor:
    monitor.step(1, {'loss': 0.5})
  assert log[0].startswith('no TensorBoard file: the workdir is in a bucket')
  assert storage.names(gs_folder) == ['metrics.jsonl']
