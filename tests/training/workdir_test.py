import json
import os

import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.training import workdir
from tests import tiny

CONFIG = tiny.config('somewhere')


def hold(path, config=CONFIG):
  with workdir.hold(str(path), config):
    pass


def test_the_config_is_kept(tmp_path):
  hold(tmp_path / 'new' / 'run')
  assert workdir.load_config(str(tmp_path / 'new' / 'run')) == CONFIG
  files = sorted(os.listdir(tmp_path / 'new' / 'run'))
  assert files == ['.lock', 'config.json']


def test_one_run_at_a_time(tmp_path):
  with workdir.hold(str(tmp_path), CONFIG):
    with pytest.raises(InputError, match='another process is training in'):
      hold(tmp_path)
  hold(tmp_path)


def test_a_run_that_failed_holds_nothing(tmp_path):
  with pytest.raises(KeyError), workdir.hold(str(tmp_path), CONFIG):
    raise KeyError
  hold(tmp_path)


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (dict(seed=1), 'seed is 0 there and 1 here'),
    (dict(bottleneck__K=32), r'bottleneck\.K is 16 there and 32 here'),
    (dict(data__side=32), r'data\.side is 16 there and 32 here'),
    (dict(data__resize=32), r'data\.resize is None there and 32 here'),
  ],
)
def test_another_config_is_refused(tmp_path, changes, said):
  hold(tmp_path)
  with pytest.raises(InputError, match=said):
    hold(tmp_path, tiny.config('somewhere', **changes))
  assert workdir.load_config(str(tmp_path)) == CONFIG


def test_what_does_not_change_the_numbers_may_change(tmp_path):
  hold(tmp_path)
  new = tiny.config(
    'somewhere',
    steps=12,
    mesh__fsdp=2,
    log_every=7,
    evaluate_every=3,
    checkpoint_every=9,
    checkpoints_kept=1,
    evaluation__batch_size=1,
    data__workers=2,
    tensorboard=True,
  )
  hold(tmp_path, new)
  assert workdir.load_config(str(tmp_path)) == new


def test_tuples_are_no_change(tmp_path):
  hold(tmp_path, tiny.config('x', data__held_out={'test': ('a', 'b')}))
  hold(tmp_path, tiny.config('x', data__held_out={'test': ['a', 'b']}))


def test_no_workdir_is_an_error(tmp_path):
  with pytest.raises(InputError, match='no workdir of a run'):
    workdir.load_config(str(tmp_path))
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(InputError, match='no workdir of a run'):
    workdir.load_config(str(tmp_path))


def test_a_workdir_that_cannot_be_written_is_an_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='workdir cannot be written'):
    hold(tmp_path / 'file' / 'run')


def test_the_batch_of_a_failure_is_kept(tmp_path):
  images = tiny.images(2)
  path = workdir.save_failure(str(tmp_path), 7, 'pixel', {'image': images})
  assert path == str(tmp_path / 'failure-7.npz')
  kept = np.load(path)
  np.testing.assert_array_equal(kept['image'], images)
  assert kept['step'] == 7 and kept['term'] == 'pixel'


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = str(tmp_path / 'config.json')
  workdir.write_text(path, json.dumps(CONFIG))

  def fail(*_):
    raise OSError('the power is gone')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='power'):
    workdir.write_text(path, 'half')
  assert workdir.load_config(str(tmp_path)) == CONFIG
