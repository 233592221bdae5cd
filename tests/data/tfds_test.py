import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lasers_jax.data import TrainPipeline, open_source
from lasers_jax.errors import InputError
from tests.data.made import (
  KIND,
  describe_tfds,
  image_feature,
  noise,
  write_tfds,
)

_DATA = pathlib.Path(__file__).parents[3] / 'shared' / 'data'
_OURS = {'root': str(_DATA / 'tfds')}
_needs_data = pytest.mark.skipif(
  not _DATA.is_dir(), reason='no data folder beside the checkout'
)
_TEXT = {'pythonClassName': f'{KIND}text_feature.Text', 'text': {}}
_LABEL = {
  'pythonClassName': f'{KIND}class_label_feature.ClassLabel',
  'classLabel': {'numClasses': '3'},
}


def _png(array):
  file = io.BytesIO()
  Image.fromarray(array).save(file, 'PNG')
  return file.getvalue()


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('cifer10', "no data set 'cifer10': .*did you mean cifar10"),
    ('photo', 'did you mean photos'),
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
  describe_tfds(tmp_path, 'as_tfrecord', {'image': image_feature()}, 'tfrecord')
  describe_tfds(tmp_path, 'words', {'text': _TEXT}, 'array_record')
  describe_tfds(tmp_path, 'empty', {'image': image_feature()}, 'array_record')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(InputError, match=message) as error:
    open_source(name, 'test')
  assert '\n' not in str(error.value)


@_needs_data
def test_cifar10():
  source = open_source('cifar10', 'test', options=_OURS)
  item = source[0]
  assert item['image'].shape == (32, 32, 3)
  assert item['image'].dtype == np.uint8
  assert 0 <= item['label'] < 10 == len(source.classes)
  assert len(source) == 10000
  part = open_source('cifar10', 'train[:90%]', options=_OURS)
  assert len(part) == 45000


@_needs_data
def test_tfds_agrees_with_its_own_decoding():
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(_DATA / 'tfds' / 'mnist' / '3.0.1')
  expected = builder.as_data_source('test[:5]')
  source = open_source('mnist', 'test[:5]', options=_OURS)
  assert len(source) == 5
  for i in range(5):
    ours, theirs = source[i], expected[i]
    np.testing.assert_array_equal(ours['image'], theirs['image'].repeat(3, -1))
    assert ours['label'] == theirs['label']


@_needs_data
def test_no_tensorflow_is_imported():
  program = (
    'import sys\n'
    'from lasers_jax.data import TrainPipeline, open_source\n'
    'lazy = {"grain", "tensorflow_datasets"} & set(sys.modules)\n'
    f'source = open_source("cifar10", "test", options={_OURS})\n'
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


@pytest.mark.parametrize(
  ('dtype', 'channels', 'said'),
  [
    ('float32', 1, r'depth has images of float32 \(image\), whose range'),
    ('float64', 1, 'depth .* cannot be opened: .*float64'),
    ('bool', 1, 'depth .* cannot be opened: .*bool'),
    ('int64', 3, 'depth .* cannot be opened: .*int64'),
    ('uint8', 2, r'depth has images of 2 channels \(image\)'),
  ],
)
def test_pictures_whose_range_is_not_known_are_refused(
  tmp_path, dtype, channels, said
):
  features = {'image': image_feature(dtype, channels)}
  describe_tfds(tmp_path, 'depth', features, 'array_record')
  with pytest.raises(InputError, match=said) as error:
    open_source('depth', 'train', options={'root': str(tmp_path)})
  assert '\n' not in str(error.value)


def test_pictures_of_16_bits_are_scaled(tmp_path):
  deep = np.array([[0, 255, 51200, 65535]], np.uint16)
  features = {'image': image_feature('uint16')}
  write_tfds(tmp_path, 'deep', features, [{'image': _png(deep)}])
  image = open_source('deep', 'train', options={'root': str(tmp_path)})[0][
    'image'
  ]
  np.testing.assert_array_equal(image[0, :, 0], [0, 1, 199, 255])


@pytest.mark.parametrize('name', ['image', 'picture', 'photo'])
def test_the_picture_may_have_another_name(tmp_path, name):
  features = {name: image_feature(), 'text': _TEXT}
  image = noise(8, 8)
  examples = [{name: _png(image), 'text': b'words'}]
  write_tfds(tmp_path, 'named', features, examples)
  source = open_source('named', 'train', options={'root': str(tmp_path)})
  np.testing.assert_array_equal(source[0]['image'], image)
  assert source[0]['label'] == -1
  assert source.classes is None


def test_which_feature_is_the_picture_must_be_plain(tmp_path):
  described = {'left': image_feature(), 'right': image_feature()}
  describe_tfds(tmp_path, 'stereo', described, 'array_record')
  with pytest.raises(InputError, match="no feature 'image'.*(left|right) are"):
    open_source('stereo', 'train', options={'root': str(tmp_path)})


def test_labels_may_be_missing(tmp_path):
  features = {'image': image_feature(), 'label': _LABEL}
  examples = [{'image': _png(noise(8, 8)), 'label': 2}]
  examples.append({'image': _png(noise(8, 8))})
  write_tfds(tmp_path, 'named', features, examples)
  source = open_source('named', 'train', options={'root': str(tmp_path)})
  assert [source[i]['label'] for i in range(2)] == [2, -1]


def test_an_example_that_cannot_be_read_is_named(tmp_path):
  examples = [{'image': _png(noise(8, 8))}, {'image': b'no picture'}, {}]
  write_tfds(tmp_path, 'damaged', {'image': image_feature()}, examples)
  source = open_source('damaged', 'train', options={'root': str(tmp_path)})
  source[0]
  for i in 1, 2:
    with pytest.raises(InputError, match=f"image {i} of 'train' cannot"):
      source[i]
  with pytest.raises(InputError, match='damaged: image'):
    TrainPipeline(source, 4, 8).batch(0)


def test_the_fingerprint_is_of_version_split_and_shards(tmp_path):
  examples = [{'image': _png(noise(8, 8))}] * 4
  features = {'image': image_feature()}
  prints = []
  for place, name, count in ('a', 'x', 4), ('b', 'x', 4), ('c', 'x', 3):
    write_tfds(tmp_path / place, name, features, examples[:count])
    prints += [
      open_source(
        name, split, options={'root': str(tmp_path / place)}
      ).fingerprint
      for split in ('train', 'train[:2]')
    ]
  assert [x['count'] for x in prints] == [4, 2, 4, 2, 3, 2]
  assert prints[:2] == prints[2:4]
  assert len({x['hash'] for x in prints}) == 4
