import logging
import os
import pathlib
import time
import unicodedata

import numpy as np
import pytest
from PIL import Image

from lasers_jax.data import eval_batches, folder, open_source
from lasers_jax.errors import InputError
from tests.data.made import noise, rgb_profile, save

_DATA = pathlib.Path(__file__).parents[3] / 'shared' / 'data'
_needs_data = pytest.mark.skipif(
  not _DATA.is_dir(), reason='no data folder beside the checkout'
)


def _open(root, split='all'):
  return open_source(f'folder:{root}', split)


def _fill(folder, count, start=0):
  for i in range(start, start + count):
    save(folder / f'{i:03}.png', noise(4, 4, seed=i))


def _names(source):
  return [os.path.basename(path) for path in source.paths]


def test_folder_with_split_folders_has_classes(tmp_path):
  for split in ('train', 'val', 'test'):
    for i, name in enumerate(('cat', 'dog', 'emu')):
      save(tmp_path / split / name / 'x' / f'{i}.png', noise(seed=i))
  train = _open(tmp_path, 'train')
  same = open_source(f'folder:{tmp_path}', 'validation')
  assert train.classes == same.classes == ['cat', 'dog', 'emu']
  assert [train[i]['label'] for i in range(len(train))] == [0, 1, 2]
  np.testing.assert_array_equal(same[2]['image'], noise(seed=2))
  assert f'{os.sep}val{os.sep}' in same.paths[0]
  assert len(_open(tmp_path)) == 9


def test_a_label_is_one_class_in_all_splits(tmp_path):
  _fill(tmp_path / 'Train' / 'ant', 3)
  _fill(tmp_path / 'Train' / 'bee', 3)
  _fill(tmp_path / 'Train' / 'e\u0301', 3)
  _fill(tmp_path / 'Test' / 'bee', 3)
  _fill(tmp_path / 'Test' / '\u00e9', 3)
  _fill(tmp_path / 'Val' / 'bee', 3)
  test = _open(tmp_path, 'test')
  assert test.classes == ['ant', 'bee', '\u00e9']
  assert test.labels == [1, 1, 1, 2, 2, 2]
  assert _open(tmp_path, 'train').labels == [0, 0, 0, 1, 1, 1, 2, 2, 2]
  assert _open(tmp_path, 'validation').labels == [1, 1, 1]


@pytest.mark.parametrize('split', ['train', 'all'])
def test_two_classes_of_one_name_are_an_error(tmp_path, split):
  _fill(tmp_path / 'e\u0301', 20)
  _fill(tmp_path / '\u00e9', 20)
  with pytest.raises(InputError, match='one name in two Unicode forms'):
    _open(tmp_path, split)


def test_the_unicode_form_of_a_path_changes_nothing(tmp_path):
  found = []
  for form in 'NFC', 'NFD':
    root = tmp_path / form
    for label in '\u00e9t\u00e9', '\uac00', 'f':
      for i in range(20):
        name = unicodedata.normalize(form, f'{label}/\u1e69{i:02}.png')
        save(root / name, noise(4, 4, seed=i))
    source = _open(root, 'train')
    images = [source[i]['image'] for i in range(len(source))]
    found.append((images, source.labels, source.classes, source.fingerprint))
  for one, other in zip(*found, strict=True):
    np.testing.assert_equal(one, other)


@pytest.fixture(scope='module')
def flat(tmp_path_factory):
  root = tmp_path_factory.mktemp('flat')
  _fill(root, 100)
  return root


def test_flat_folder_is_cut_by_hash(flat):
  splits = ('train', 'validation', 'test')
  opened = [_open(flat, split) for split in splits]
  paths = [set(source.paths) for source in opened]
  everything = _open(flat)
  assert sum(map(len, paths)) == len(set.union(*paths)) == 100
  assert set.union(*paths) == set(everything.paths)
  assert 65 < len(paths[0]) < 95
  assert opened[0].classes is None
  assert opened[0][0]['label'] == -1


def test_a_picture_keeps_its_split_when_others_come(flat, tmp_path):
  names = sorted(path.name for path in flat.iterdir())
  for name in names[::2]:
    save(tmp_path / name)
  whole, half = (set(_names(_open(root, 'test'))) for root in (flat, tmp_path))
  assert half == whole & set(names[::2])


def test_what_is_held_out_is_said(tmp_path, caplog):
  _fill(tmp_path / 'train', 50)
  _fill(tmp_path / 'test', 5)
  with caplog.at_level(logging.INFO):
    sources = {x: _open(tmp_path, x) for x in ('train', 'validation', 'test')}
  assert len(sources['train']) + len(sources['validation']) == 50
  assert not set(sources['train'].paths) & set(sources['validation'].paths)
  assert len(sources['test']) == 5
  for line, name in zip(caplog.messages, ('train', 'validation'), strict=True):
    assert line == (
      f'{tmp_path}: no folder for validation: a tenth each of train is held '
      f'out; {name} has {len(sources[name])} of 50'
    )


def test_what_is_left_out_is_counted_in_one_line(tmp_path, caplog):
  _fill(tmp_path / 'train', 20)
  _fill(tmp_path / 'val', 2)
  _fill(tmp_path / 'test', 2)
  _fill(tmp_path / 'extra', 3)
  _fill(tmp_path / 'test' / '@eaDir', 1)
  _fill(tmp_path / '.Trash-0' / 'files', 1)
  for name in 'one.heic', 'two.nef':
    (tmp_path / 'train' / name).write_bytes(b'?')
  os.symlink('000.png', tmp_path / 'train' / 'again.png')
  os.symlink('test', tmp_path / 'dev')
  with caplog.at_level(logging.INFO):
    assert len(_open(tmp_path, 'train')) == 20
    assert len(_open(tmp_path, 'test')) == 2
  assert caplog.messages == [
    f'{tmp_path}, train: left out: there already, by a link: 2 '
    '(train/again.png, ...); of a kind that is not read: 2 (train/one.heic, '
    '...); in a waste basket: 1 (.Trash-0/files/000.png); beside the folders '
    'of splits: 3 (extra/000.png, ...)',
    f'{tmp_path}, test: left out: thumbnails: 1 (test/@eaDir/000.png)',
  ]


@pytest.mark.parametrize(
  'damage',
  [lambda data: data[: len(data) // 2], lambda _: b'no picture', lambda _: b''],
  ids=['truncated', 'text', 'empty'],
)
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_corrupt_files_are_named_and_skipped(tmp_path, caplog, damage, suffix):
  save(tmp_path / 'good.png')
  save(tmp_path / f'bad.{suffix}', noise(64, 64))
  data = (tmp_path / f'bad.{suffix}').read_bytes()
  (tmp_path / f'bad.{suffix}').write_bytes(damage(data))
  with caplog.at_level(logging.WARNING):
    source = _open(tmp_path)
  assert _names(source) == ['good.png']
  path = tmp_path / f'bad.{suffix}'
  assert f'left out, cannot be read: {path}' in caplog.messages[0]
  assert caplog.messages[1] == (
    f'{tmp_path}, all: left out: cannot be read: 1 (bad.{suffix})'
  )


def test_of_many_corrupt_files_a_few_are_named(tmp_path, caplog):
  _fill(tmp_path, 1)
  for i in range(40):
    (tmp_path / f'bad{i:02}.png').write_bytes(b'?')
  with caplog.at_level(logging.WARNING):
    assert len(_open(tmp_path)) == 1
  assert len(caplog.messages) == 11
  assert caplog.messages[-1].endswith('cannot be read: 40 (bad00.png, ...)')


def _strip(height, width, name='strip.png'):
  return lambda root: Image.new('RGB', (width, height)).save(root / name)


@pytest.mark.parametrize(
  ('write', 'said'),
  [
    (_strip(2, 20_000), 'over 100 times as long as wide: 1'),
    (_strip(20_000, 3), 'over 100 times as long as wide: 1'),
    (
      lambda root: Image.new('1', (20_000, 10_000)).save(root / 'large.png'),
      'too large: 1',
    ),
    (
      lambda root: save(root / 'a.tif', np.ones((4, 4), np.float32)),
      'cannot be read: 1',
    ),
  ],
)
def test_pictures_that_cannot_be_used_are_left_out(
  tmp_path, caplog, write, said
):
  save(tmp_path / 'good.png')
  _strip(1, 100, 'thin.png')(tmp_path)
  write(tmp_path)
  with caplog.at_level(logging.WARNING):
    source = _open(tmp_path)
  assert _names(source) == ['good.png', 'thin.png']
  assert f'left out: {said}' in caplog.messages[-1]
  (batch,) = eval_batches(source, 2, 16)
  assert batch['image'].shape == (2, 16, 16, 3)


def test_profiles_that_cannot_be_used_are_counted(tmp_path, caplog):
  _fill(tmp_path, 2)
  save(tmp_path / 'a.png', icc_profile=rgb_profile())
  for name in 'b.png', 'c.png':
    save(tmp_path / name, icc_profile=b'no profile')
  with caplog.at_level(logging.WARNING):
    assert len(_open(tmp_path)) == 5
  (line,) = caplog.messages
  assert f'{tmp_path}: 2 colour profiles ignored, the first of b.png: ' in line


def test_large_folders_are_read_in_full(tmp_path, caplog, monkeypatch):
  monkeypatch.setattr('lasers_jax.data.checking._CHUNK', 7)
  _fill(tmp_path, 30)
  for i in range(0, 30, 5):
    path = tmp_path / f'{i:03}.png'
    path.write_bytes(path.read_bytes()[:-40])
  assert len(_open(tmp_path)) == 24


def test_folder_errors(tmp_path):
  with pytest.raises(InputError, match='no folder .*check the path'):
    _open(f'{tmp_path}/none', 'train')
  with pytest.raises(InputError, match='needs a path'):
    open_source('folder', 'train')
  with pytest.raises(InputError, match='no folder .~no-such-user/x'):
    _open('~no-such-user/x')
  with pytest.raises(InputError, match='no image in .*looked for .png'):
    _open(tmp_path, 'train')
  (tmp_path / 'a.heic').write_bytes(b'?')
  with pytest.raises(InputError, match='no image .*left out: of a kind .* 1'):
    _open(tmp_path)
  (tmp_path / 'a.png').write_bytes(b'?')
  with pytest.raises(InputError, match='none of the 1 images .* a.png'):
    _open(tmp_path)
  with pytest.raises(InputError, match='no split .*train, validation, test'):
    _open(tmp_path, 'trian')
  save(tmp_path / 'a.png')
  with pytest.raises(InputError, match='by hash.*data.(train|test) in the con'):
    for split in ('train', 'test'):  # one picture cannot be in both
      _open(tmp_path, split)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_folder_that_may_not_be_read(tmp_path):
  (tmp_path / 'locked').mkdir(mode=0)
  with pytest.raises(InputError, match='cannot be read'):
    _open(tmp_path)


# The fingerprint


def test_the_fingerprint_is_of_names_and_sizes(tmp_path):
  _fill(tmp_path / 'a' / 'train', 20)
  first = _open(tmp_path / 'a', 'train').fingerprint
  assert first['count'] == len(_open(tmp_path / 'a', 'train'))
  assert first == _open(tmp_path / 'a', 'train').fingerprint
  (tmp_path / 'a').rename(tmp_path / 'moved')
  assert _open(tmp_path / 'moved', 'train').fingerprint == first
  assert _open(tmp_path / 'moved', 'validation').fingerprint != first
  changed = []
  _fill(tmp_path / 'moved' / 'train', 5, start=20)
  changed.append(_open(tmp_path / 'moved', 'train').fingerprint)
  (tmp_path / 'moved' / 'train' / '000.png').rename(tmp_path / 'x.png')
  changed.append(_open(tmp_path / 'moved', 'train').fingerprint)
  save(tmp_path / 'moved' / 'train' / '000.png', noise(5, 5))
  changed.append(_open(tmp_path / 'moved', 'train').fingerprint)
  hashes = [x['hash'] for x in [first, *changed]]
  assert len(set(hashes)) == 4


@_needs_data
def test_clothing_folder():
  source = _open(_DATA / 'clothing128', 'validation')
  assert len(source.classes) == 10
  assert min(source[0]['image'].shape[:2]) == 128


def test_a_folder_is_listed_once_for_its_splits(tmp_path, monkeypatch):
  listed, list_images = [], folder.list_images
  monkeypatch.setattr(
    folder,
    'list_images',
    lambda *args: [listed.append(args), list_images(*args)][1],
  )
  for split in 'train', 'val', 'test':
    save(tmp_path / split / 'a.png')
  long_ago = time.time() - 9
  for path in tmp_path, *tmp_path.iterdir():
    os.utime(path, (long_ago, long_ago))
  for split in 'train', 'validation', 'test', 'all':
    open_source(f'folder:{tmp_path}', split)
  assert len(listed) == 1
  save(tmp_path / 'test' / 'b.png')
  assert len(open_source(f'folder:{tmp_path}', 'test')) == 2
  # It has just been changed, and may be again within a tick of the clock.
  open_source(f'folder:{tmp_path}', 'test')
  assert len(listed) == 3
