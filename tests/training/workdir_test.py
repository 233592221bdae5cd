import errno
import fcntl
import json
import os
import tempfile

import numpy as np
import pytest

from lasers_jax.core.storage import check_folder, write_text
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings
from lasers_jax.training import workdir
from tests import tiny

CONFIG = tiny.config('somewhere')


def run(config=CONFIG, **fingerprints):
  return workdir.Run(config, settings.with_defaults, fingerprints)


def lock(path, config=CONFIG, **fingerprints):
  with workdir.lock_workdir(str(path), run(config, **fingerprints)):
    pass


def test_the_config_is_kept(tmp_path):
  lock(tmp_path / 'new' / 'run')
  assert workdir.load_config(str(tmp_path / 'new' / 'run')) == CONFIG
  files = sorted(os.listdir(tmp_path / 'new' / 'run'))
  assert files == ['.lock', 'config.json']


def test_one_run_at_a_time(tmp_path):
  with (
    workdir.lock_workdir(str(tmp_path), run()),
    pytest.raises(InputError, match='another process is training in'),
  ):
    lock(tmp_path)
  lock(tmp_path)


def test_a_run_that_failed_holds_nothing(tmp_path):
  with pytest.raises(KeyError), workdir.lock_workdir(str(tmp_path), run()):
    raise KeyError
  lock(tmp_path)


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
  lock(tmp_path)
  with pytest.raises(InputError, match=said):
    lock(tmp_path, tiny.config('somewhere', **changes))
  assert workdir.load_config(str(tmp_path)) == CONFIG


def test_what_does_not_change_the_numbers_may_change(tmp_path):
  lock(tmp_path)
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
  lock(tmp_path, new)
  assert workdir.load_config(str(tmp_path)) == new


@pytest.mark.parametrize(
  'key',
  [
    'log_every',  # of the run itself
    'data__flip',
    'optimizer__accumulate',
    'bottleneck__pursuit',
    'network__dtype',
    'evaluation__pictures',
  ],
)
def test_a_key_at_its_default_is_no_change(tmp_path, key):
  *sections, name = key.split('__')
  filled = settings.with_defaults(CONFIG)
  for section in sections:
    filled = filled[section]
  explicit = tiny.config('somewhere', **{key: filled[name]})
  implicit = tiny.config('somewhere', **{key: None})
  inner = implicit[sections[0]] if sections else implicit
  del inner[name]
  lock(tmp_path / 'a', implicit)
  lock(tmp_path / 'a', explicit)
  lock(tmp_path / 'b', explicit)
  lock(tmp_path / 'b', implicit)


def test_a_section_at_its_defaults_is_no_change(tmp_path):
  short = tiny.config('somewhere')
  del short['mesh'], short['evaluation']
  lock(tmp_path, short)
  lock(tmp_path, CONFIG)


def test_a_key_that_is_new_and_not_at_its_default_is_a_change(tmp_path):
  lock(tmp_path)
  with pytest.raises(InputError, match='data.flip is True there and False'):
    lock(tmp_path, tiny.config('somewhere', data__flip=False))


def test_tuples_are_no_change(tmp_path):
  lock(tmp_path, tiny.config('x', data__held_out={'test': ('a', 'b')}))
  lock(tmp_path, tiny.config('x', data__held_out={'test': ['a', 'b']}))


def test_no_workdir_is_an_error(tmp_path):
  with pytest.raises(InputError, match='no workdir of a run'):
    workdir.load_config(str(tmp_path))
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(InputError, match='no workdir of a run'):
    workdir.load_config(str(tmp_path))


@pytest.mark.parametrize(
  ('found', 'said'),
  [
    ({}, 'was written before formats had numbers'),
    ({'format': 2}, 'was written in format 2'),
    ({'format': '1'}, "was written in format '1'"),
  ],
)
def test_another_format_is_one_line(tmp_path, found, said):
  (tmp_path / 'config.json').write_text(json.dumps({**found, **CONFIG}))
  with pytest.raises(InputError) as error:
    workdir.load_config(str(tmp_path))
  assert str(error.value) == (
    f'{tmp_path} {said}, and this release reads format 1: use the release '
    'that wrote it, or train again'
  )
  with pytest.raises(InputError, match=said):
    lock(tmp_path)


def test_a_workdir_that_cannot_be_written_is_an_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot be written: .*choose another'):
    lock(tmp_path / 'file' / 'run')


def test_the_batch_of_a_failure_is_kept(tmp_path):
  images = tiny.images(2)
  path = workdir.save_failure(str(tmp_path), 7, 'pixel', {'image': images})
  assert path == str(tmp_path / 'failure-7.npz')
  kept = np.load(path)
  np.testing.assert_array_equal(kept['image'], images)
  assert kept['step'] == 7
  assert kept['term'] == 'pixel'


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = str(tmp_path / 'config.json')
  workdir.write_config(str(tmp_path), CONFIG)

  def fail(*_):
    raise OSError('the power is gone')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='power'):
    write_text(path, 'half')
  assert workdir.load_config(str(tmp_path)) == CONFIG


def some(count, hash='a'):
  return {'count': count, 'hash': hash}


def test_other_pictures_are_told_once(tmp_path, log):
  lock(tmp_path, train=some(12), validation=some(3))
  lock(tmp_path, train=some(12), validation=some(3))
  assert log == []
  lock(tmp_path, train=some(15), validation=some(3, 'b'))
  assert [line.split(' are not')[0] for line in log] == [
    "the images of the split 'train'",
    "the images of the split 'validation'",
  ]
  assert '12 then, 15 now' in log[0]
  lock(tmp_path, train=some(15), validation=some(3, 'b'))
  assert len(log) == 2


def test_the_same_pictures_may_move(tmp_path, log):
  lock(tmp_path, train=some(12), validation=some(3))
  lock(tmp_path, tiny.config('moved'), train=some(12), validation=some(3))
  assert log == ['the images of folder:somewhere are now in folder:moved']
  assert workdir.load_config(str(tmp_path))['data']['name'] == 'folder:moved'


@pytest.mark.parametrize(
  'pictures', [{}, {'train': some(12, 'b')}, {'other': some(12)}]
)
def test_other_pictures_under_another_name_are_refused(tmp_path, pictures):
  lock(tmp_path, train=some(12))
  with pytest.raises(InputError, match='data.name is .*somewhere.*:elsewhere'):
    lock(tmp_path, tiny.config('elsewhere'), **pictures)


@pytest.mark.parametrize(
  'text', ['', '[1]', '{"train": ', '\xff', 'null', '{"train": 3}']
)
def test_a_damaged_list_of_pictures_is_as_none(tmp_path, text):
  lock(tmp_path, train=some(12))
  (tmp_path / 'data.json').write_text(text, encoding='latin-1')
  lock(tmp_path, train=some(13))
  assert workdir.load_fingerprints(str(tmp_path)) == {'train': some(13)}


@pytest.mark.parametrize('text', ['[1]', '3', '"a"', 'null', '\xff', '{'])
def test_a_config_that_is_no_object_is_an_error(tmp_path, text):
  (tmp_path / 'config.json').write_text(text, encoding='latin-1')
  with pytest.raises(InputError, match='no workdir of a run'):
    workdir.load_config(str(tmp_path))


@pytest.mark.parametrize('section', ['data', 'network', 'bottleneck', 'mesh'])
def test_a_config_whose_section_is_none_is_an_error(tmp_path, section):
  lock(tmp_path)
  workdir.write_config(str(tmp_path), {**CONFIG, section: 3})
  with pytest.raises(InputError, match=f'{section} must be a section of keys'):
    lock(tmp_path)


NO_UTF8 = os.fsdecode(b'caf\xe9')


@pytest.mark.parametrize(
  'name',
  ['run[1]', 'lr=[1e-3]', '[', 'a*', 'a?', 'a\\b', 'x/gs:/y', 'gs:', NO_UTF8],
)
@pytest.mark.parametrize('inside', ['', '/run'])
def test_paths_that_lose_checkpoints_are_refused(tmp_path, name, inside):
  with pytest.raises(InputError, match='no checkpoint can be read back') as e:
    workdir.locate(f'{tmp_path}/{name}{inside}')
  str(e.value).encode()
  assert '\n' not in str(e.value)


def test_a_relative_path_is_refused_for_where_it_stands(tmp_path, monkeypatch):
  (tmp_path / 'photos [2]').mkdir()
  monkeypatch.chdir(tmp_path / 'photos [2]')
  with pytest.raises(InputError, match='no checkpoint can be read back'):
    workdir.locate('run')


@pytest.mark.parametrize(
  'address', ['GS://b', 'file:///x', 'hf://a/b', 'gcs://b/run']
)
def test_an_address_of_no_bucket_is_no_workdir(address):
  with pytest.raises(InputError, match=f'{address} is an address of'):
    workdir.locate(address)


def test_a_workdir_may_be_in_a_bucket_that_takes_checkpoints():
  assert workdir.locate('gs://bucket/runs/a/') == 'gs://bucket/runs/a'
  with pytest.raises(InputError, match='no checkpoint .* s3://b, since Orbax'):
    workdir.locate('s3://b')


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert workdir.locate('~') == str(tmp_path)
  assert workdir.locate('~/runs/x') == str(tmp_path / 'runs/x')
  assert workdir.locate('runs/~x/') == str(tmp_path / 'runs/~x')
  assert workdir.locate('./~x') == str(tmp_path / '~x')
  with pytest.raises(InputError, match='home folder in ~nobody.here/x: .*./~'):
    workdir.locate('~nobody.here/x')


@pytest.mark.parametrize('name', ['ENOLCK', 'ENOSYS', 'EOPNOTSUPP', 'EINVAL'])
def test_a_disk_that_cannot_lock_is_told(tmp_path, monkeypatch, log, name):
  number = getattr(errno, name)

  def flock(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, 'flock', flock)
  lock(tmp_path)
  (line,) = log
  assert line.startswith(f'the disk of {tmp_path} cannot lock files')


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path, monkeypatch):
  def flock(*_):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(fcntl, 'flock', flock)
  with pytest.raises(InputError, match='cannot be locked: Input/output error'):
    lock(tmp_path)


def test_a_folder_that_may_not_be_written_is_an_error(tmp_path, monkeypatch):
  def refuse(**_):
    raise OSError(errno.EROFS, 'Read-only file system')

  monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
  with pytest.raises(InputError, match=r'Read-only file system \(mend it\)'):
    check_folder(str(tmp_path), 'mend it')
