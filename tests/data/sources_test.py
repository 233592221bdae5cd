import json
import logging
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lasers_jax.data import open_source
from lasers_jax.data.sources import decode
from lasers_jax.errors import InputError

_DATA = pathlib.Path(__file__).parents[3] / 'shared' / 'data'
_needs_data = pytest.mark.skipif(
  not _DATA.is_dir(), reason='no data folder beside the checkout'
)
_HELD_OUT = {'test': ('chelsea', 'flower'), 'validation': ('rocket',)}


def _noise(height=12, width=10, channels=3, seed=0):
  shape = (height, width, channels) if channels > 1 else (height, width)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _save(path, array=None, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(_noise() if array is None else array).save(path, **options)


# Decoding


def test_decode_keeps_rgb(tmp_path):
  image = _noise()
  _save(tmp_path / 'a.png', image)
  np.testing.assert_array_equal(decode(tmp_path / 'a.png'), image)


@pytest.mark.parametrize('mode', ['L', 'P', '1', 'CMYK', 'LA', 'YCbCr'])
def test_decode_gives_rgb_for_every_mode(tmp_path, mode):
  name = 'a.tif' if mode in ('CMYK', 'YCbCr') else 'a.png'
  picture = Image.fromarray(_noise()).convert(mode)
  picture.save(tmp_path / name)
  image = decode(tmp_path / name)
  assert image.shape == (12, 10, 3) and image.dtype == np.uint8
  if mode != 'LA':  # its alpha is opaque
    np.testing.assert_array_equal(image, np.asarray(picture.convert('RGB')))


def test_decode_lays_transparency_over_white(tmp_path):
  image = np.zeros((4, 4, 4), np.uint8)
  image[..., 0] = 200
  image[2:, :, 3] = 255
  image[0, 0] = 100, 0, 0, 128
  _save(tmp_path / 'a.png', image)
  rgb = decode(tmp_path / 'a.png')
  assert (rgb[1] == 255).all()
  assert (rgb[2:] == (200, 0, 0)).all()
  # 100 and 0 at half opacity over 255
  np.testing.assert_allclose(rgb[0, 0], (177, 127, 127), atol=1)


def test_decode_lays_a_transparent_palette_colour_over_white(tmp_path):
  picture = Image.new('P', (4, 4), 0)
  picture.putpalette([10, 20, 30, 40, 50, 60])
  picture.putpixel((0, 0), 1)
  picture.save(tmp_path / 'a.png', transparency=0)
  image = decode(tmp_path / 'a.png')
  assert (image[0, 0] == (40, 50, 60)).all()
  assert (image[1:] == 255).all()


def test_decode_scales_16_bit_grey(tmp_path):
  grey = np.array([[0, 255, 51200, 65535]], np.uint16)
  _save(tmp_path / 'a.png', grey)
  image = decode(tmp_path / 'a.png')
  np.testing.assert_array_equal(image[0, :, 0], [0, 1, 199, 255])
  assert (image == image[..., :1]).all()


def test_decode_turns_by_exif(tmp_path):
  image = _noise()
  exif = Image.Exif()
  exif[0x0112] = 6  # shown after a quarter turn to the right
  _save(tmp_path / 'a.png', image, exif=exif)
  expected = np.rot90(image, -1)
  np.testing.assert_array_equal(decode(tmp_path / 'a.png'), expected)


def test_decode_takes_the_first_frame(tmp_path):
  frames = [Image.new('RGB', (6, 5), colour) for colour in ('red', 'blue')]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  assert (decode(tmp_path / 'a.gif') == (255, 0, 0)).all()


# Photographs


def test_photos_train_shares_nothing_with_the_held_out():
  opened = {
    split: open_source('photos', split, held_out=_HELD_OUT)
    for split in ('train', 'validation', 'test', 'all')
  }
  paths = {split: set(source.paths) for split, source in opened.items()}
  assert len(paths['test']) == 2 and len(paths['validation']) == 1
  assert len(paths['train']) >= 5
  assert not paths['train'] & (paths['test'] | paths['validation'])
  assert paths['train'] | paths['test'] | paths['validation'] == paths['all']
  assert not any('motorcycle_right' in path for path in paths['all'])
  first = opened['test'][0]
  assert first['image'].shape == (300, 451, 3) and first['label'] == -1


@pytest.mark.parametrize(
  ('split', 'held_out', 'message'),
  [
    ('test', {'test': ('chelse',)}, "did you mean 'chelsea'"),
    ('vall', _HELD_OUT, 'has no split .*train, all, test, validation'),
    ('test', {'test': ()}, "the split 'test' of photos is empty"),
    ('test', {}, "no split 'test'"),
  ],
)
def test_photos_errors(split, held_out, message):
  with pytest.raises(InputError, match=message):
    open_source('photos', split, held_out=held_out)


def test_held_out_belongs_to_photos():
  with pytest.raises(InputError, match="option of the data set 'photos'"):
    open_source('mnist', 'train', held_out=_HELD_OUT)


# A folder


def test_folder_with_split_folders_has_classes(tmp_path):
  for split in ('train', 'val'):
    for i, name in enumerate(('cat', 'dog', 'emu')):
      _save(tmp_path / split / name / 'x' / f'{i}.png', _noise(seed=i))
  train = open_source(f'folder:{tmp_path}', 'train')
  same = open_source('folder', 'validation', root=tmp_path)
  assert train.classes == same.classes == ['cat', 'dog', 'emu']
  assert [train[i]['label'] for i in range(len(train))] == [0, 1, 2]
  np.testing.assert_array_equal(same[2]['image'], _noise(seed=2))
  assert f'{os.sep}val{os.sep}' in same.paths[0]
  assert len(open_source(f'folder:{tmp_path}', 'all')) == 6
  with pytest.raises(InputError, match="no split 'test': it has train, val"):
    open_source(f'folder:{tmp_path}', 'test')


@pytest.fixture(scope='module')
def flat(tmp_path_factory):
  root = tmp_path_factory.mktemp('flat')
  for i in range(100):
    _save(root / f'{i:03}.png', _noise(4, 4, seed=i))
  return root


def test_flat_folder_is_cut_by_hash(flat):
  splits = ('train', 'validation', 'test')
  opened = [open_source(f'folder:{flat}', split) for split in splits]
  paths = [set(source.paths) for source in opened]
  everything = open_source(f'folder:{flat}', 'all')
  assert sum(map(len, paths)) == len(set.union(*paths)) == 100
  assert set.union(*paths) == set(everything.paths)
  assert 65 < len(paths[0]) < 95
  assert opened[0].classes is None and opened[0][0]['label'] == -1


def test_a_picture_keeps_its_split_when_others_come(flat, tmp_path):
  names = sorted(path.name for path in flat.iterdir())
  for name in names[::2]:
    _save(tmp_path / name)
  whole, half = (
    {os.path.basename(p) for p in open_source(f'folder:{root}', 'test').paths}
    for root in (flat, tmp_path)
  )
  assert half == whole & set(names[::2])


@pytest.mark.parametrize(
  'damage',
  [lambda data: data[: len(data) // 2], lambda _: b'no picture', lambda _: b''],
  ids=['truncated', 'text', 'empty'],
)
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_corrupt_files_are_named_and_skipped(tmp_path, caplog, damage, suffix):
  _save(tmp_path / 'good.png')
  _save(tmp_path / f'bad.{suffix}', _noise(64, 64))
  data = (tmp_path / f'bad.{suffix}').read_bytes()
  (tmp_path / f'bad.{suffix}').write_bytes(damage(data))
  with caplog.at_level(logging.WARNING):
    source = open_source(f'folder:{tmp_path}', 'all')
  assert [os.path.basename(path) for path in source.paths] == ['good.png']
  assert str(tmp_path / f'bad.{suffix}') in caplog.text
  assert '1 of 2 pictures left out' in caplog.text


def test_floating_point_pictures_are_left_out(tmp_path, caplog):
  _save(tmp_path / 'good.png')
  _save(tmp_path / 'range.tif', np.ones((4, 4), np.float32))
  assert len(open_source(f'folder:{tmp_path}', 'all')) == 1
  assert 'its range is not known' in caplog.text


def test_large_folders_have_only_their_headers_read(flat, caplog, monkeypatch):
  monkeypatch.setattr('lasers_jax.data.sources._MAX_FULL_CHECK', 50)
  assert len(open_source(f'folder:{flat}', 'all')) == 100
  assert 'only headers are checked' in caplog.text


def test_hidden_and_other_files_are_no_pictures(tmp_path):
  _save(tmp_path / 'a.PNG', format='png')
  _save(tmp_path / '.thumbs' / 'b.png')
  (tmp_path / '._a.png').write_bytes(b'resource fork')
  (tmp_path / 'notes.txt').write_text('not a picture')
  os.symlink(tmp_path, tmp_path / 'loop')
  assert len(open_source(f'folder:{tmp_path}', 'all')) == 1


def test_folder_errors(tmp_path):
  with pytest.raises(InputError, match='no folder .*check the path'):
    open_source(f'folder:{tmp_path}/none', 'train')
  with pytest.raises(InputError, match='needs a path'):
    open_source('folder', 'train')
  with pytest.raises(InputError, match='no picture in .*looked for .bmp'):
    open_source(f'folder:{tmp_path}', 'train')
  (tmp_path / 'a.png').write_bytes(b'?')
  with pytest.raises(InputError, match='none of the 1 pictures .* a.png'):
    open_source(f'folder:{tmp_path}', 'all')
  with pytest.raises(InputError, match='no split .*train, validation, test'):
    open_source(f'folder:{tmp_path}', 'trian')
  _save(tmp_path / 'a.png')
  with pytest.raises(InputError, match='by hash'):
    for split in ('train', 'test'):  # one picture cannot be in both
      open_source(f'folder:{tmp_path}', split)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_folder_that_may_not_be_read(tmp_path):
  (tmp_path / 'locked').mkdir(mode=0)
  with pytest.raises(InputError, match='cannot be read'):
    open_source(f'folder:{tmp_path}', 'all')


# tfds

_FEATURES = {
  'image': {
    'pythonClassName': 'tensorflow_datasets.core.features.image_feature.Image',
    'image': {'shape': {'dimensions': ['-1', '-1', '3']}, 'dtype': 'uint8'},
  },
  'text': {
    'pythonClassName': 'tensorflow_datasets.core.features.text_feature.Text',
    'text': {},
  },
}


def _fake_tfds(root, name, feature='image', file_format='array_record'):
  """Writes the description, though not the records, of a tfds data set."""
  folder = root / name / '1.0.0'
  folder.mkdir(parents=True)
  splits = [{'name': 'train', 'shardLengths': ['4'], 'numBytes': '9'}]
  info = {'name': name, 'version': '1.0.0', 'splits': splits}
  info['fileFormat'] = file_format
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  kind = 'tensorflow_datasets.core.features.features_dict.FeaturesDict'
  features = {
    'pythonClassName': kind,
    'featuresDict': {'features': {feature: _FEATURES[feature]}},
  }
  (folder / 'features.json').write_text(json.dumps(features))


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('cifer10', "no data set 'cifer10', did you mean 'cifar10'"),
    ('photo', "did you mean 'photos'"),
    ('not a name', "no data set 'not a name'"),
    (
      'cifar10',
      'cifar10 is not prepared in .*: run `TFDS_DATA_DIR=.* python -c '
      r'"import tensorflow_datasets as tfds; tfds.builder\(\'cifar10\', '
      r"file_format='array_record'\).download_and_prepare\(\)\"`",
    ),
    ('as_tfrecord', 'stored as tfrecord.*prepare it anew.*TFDS_DATA_DIR='),
    ('words', "words has no feature 'image', only text"),
    ('empty', "cannot give the split 'test' .*: it has train"),
  ],
)
def test_tfds_errors(tmp_path, monkeypatch, name, message):
  _fake_tfds(tmp_path, 'as_tfrecord', file_format='tfrecord')
  _fake_tfds(tmp_path, 'words', feature='text')
  _fake_tfds(tmp_path, 'empty')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(InputError, match=message) as error:
    open_source(name, 'test')
  assert '\n' not in str(error.value)


@_needs_data
def test_cifar10():
  source = open_source('cifar10', 'test', root=_DATA / 'tfds')
  item = source[0]
  assert item['image'].shape == (32, 32, 3) and item['image'].dtype == np.uint8
  assert 0 <= item['label'] < 10 == len(source.classes)
  assert len(source) == 10000
  part = open_source('cifar10', 'train[:90%]', root=_DATA / 'tfds')
  assert len(part) == 45000


@_needs_data
def test_tfds_agrees_with_its_own_decoding():
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(_DATA / 'tfds' / 'mnist' / '3.0.1')
  expected = builder.as_data_source('test[:5]')
  source = open_source('mnist', 'test[:5]', root=_DATA / 'tfds')
  assert len(source) == 5
  for i in range(5):
    ours, theirs = source[i], expected[i]
    np.testing.assert_array_equal(ours['image'], theirs['image'].repeat(3, -1))
    assert ours['label'] == theirs['label']


@_needs_data
def test_clothing_folder():
  source = open_source(f'folder:{_DATA}/clothing128', 'validation')
  assert len(source.classes) == 10
  assert min(source[0]['image'].shape[:2]) == 128


@_needs_data
def test_no_tensorflow_is_imported():
  program = (
    'import sys\n'
    'from lasers_jax.data import TrainPipeline, open_source\n'
    'lazy = {"grain", "tensorflow_datasets"} & set(sys.modules)\n'
    f'source = open_source("cifar10", "test", root={str(_DATA / "tfds")!r})\n'
    'TrainPipeline(source, 4, 32).batch(0)\n'
    'print(lazy or "lazy", "tensorflow" in sys.modules)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    env={**os.environ, 'PYTHONPATH': str(pathlib.Path(__file__).parents[2])},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.split() == ['lazy', 'False']
