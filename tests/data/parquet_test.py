"""Images in Parquet files, laid out as on the Hugging Face hub."""

import json
import pickle
import sys

import numpy as np
import pytest

from lasers_jax.data import open_source
from lasers_jax.data.packing import pack_splits
from lasers_jax.data.shards import Packing
from lasers_jax.data.stored import encode
from lasers_jax.errors import InputError
from tests.data.made import noise

pa = pytest.importorskip('pyarrow', reason='pyarrow is not installed')
pq = pytest.importorskip('pyarrow.parquet')


def _png(seed):
  return encode(noise(12, 10, seed=seed), 'png')


def _write(path, seeds, column='image', structure=True, names=None, **others):
  path.parent.mkdir(parents=True, exist_ok=True)
  images = [_png(seed) for seed in seeds]
  if structure:
    images = [
      {'bytes': x, 'path': f'{seed}.png'}
      for x, seed in zip(images, seeds, strict=True)
    ]
  table = pa.table({column: images, **others})
  if names:
    features = {'label': {'names': names, '_type': 'ClassLabel'}}
    about = json.dumps({'info': {'features': features}})
    table = table.replace_schema_metadata({'huggingface': about})
  pq.write_table(table, path, row_group_size=2)


@pytest.fixture
def files(tmp_path):
  for i in range(2):
    seeds = range(5 * i, 5 * i + 5)
    path = tmp_path / f'train-0000{i}-of-00002.parquet'
    _write(path, seeds, label=[x % 2 for x in seeds], names=['cat', 'dog'])
  _write(tmp_path / 'test' / '0000.parquet', [20, 21], label=[1, 0])
  _write(tmp_path / 'val.parquet', [30], label=[1])
  return f'parquet:{tmp_path}/**/*.parquet'


def test_images_labels_names_and_classes(files):
  source = open_source(files, 'train')
  assert len(source) == 10
  assert source.classes == ['cat', 'dog']
  for i in (9, 0, 4, 5, 1, 8):
    np.testing.assert_array_equal(source[i]['image'], noise(12, 10, seed=i))
    assert source[i]['label'] == i % 2
    assert source.stored(i).name == f'{i}.png'
  assert len(open_source(files, 'test')) == 2
  part = open_source(files, 'train[7:9]')
  assert [part.stored(i).name for i in range(2)] == ['7.png', '8.png']
  assert part.fingerprint != source.fingerprint
  copy = pickle.loads(pickle.dumps(source))
  assert copy.stored(3) == source.stored(3)


def test_a_column_of_bytes_without_labels(tmp_path):
  _write(tmp_path / 'train.parquet', range(3), 'img', structure=False)
  source = open_source(f'parquet:{tmp_path}/train.parquet', 'all')
  assert source[2]['label'] == -1
  assert source.classes is None
  assert source.stored(2).name == 'train.parquet/2'
  np.testing.assert_array_equal(source[2]['image'], noise(12, 10, seed=2))


def test_columns_can_be_named(tmp_path):
  bytes_ = [b'x', b'y']
  _write(tmp_path / 'train.parquet', [0, 1], 'photo', mask=bytes_, kind=[4, 5])
  name = f'parquet:{tmp_path}/train.parquet'
  with pytest.raises(InputError, match='it has photo, mask, kind; say data.op'):
    open_source(name, 'all')
  options = {'image': 'photo', 'label': 'kind'}
  source = open_source(name, 'all', options=options)
  assert [source[i]['label'] for i in range(2)] == [4, 5]
  for wrong in {'image': 'kind'}, {'image': 'photo', 'label': 'x'}:
    with pytest.raises(InputError, match='it has photo, mask, kind'):
      open_source(name, 'all', options=wrong)


def test_they_are_packed_with_bad_images_left_out(files, tmp_path):
  path = tmp_path / 'train-00009.parquet'
  rows = [{'bytes': b'no image', 'path': 'bad.png'}, {'bytes': None}]
  pq.write_table(pa.table({'image': rows, 'label': [0, 1]}), path)
  target = str(tmp_path / 'records')
  packed = pack_splits(files, target, Packing(per_shard=4))
  assert packed['train'].counts == [4, 4, 2]
  assert [x for x, _ in packed['train'].skipped] == [
    'bad.png', 'train-00009.parquet/1',
  ]  # fmt: skip
  source = open_source(files, 'train')
  ours = open_source(f'records:{target}', 'train')
  assert ours.classes == ['cat', 'dog']
  assert [ours.stored(i) for i in range(10)] == [
    source.stored(i) for i in range(10)
  ]
  with pytest.raises(InputError, match='image 10 .*: pack the images'):
    source[10]


def test_errors_are_one_line(files, tmp_path, monkeypatch):
  (tmp_path / 'train-bad.parquet').write_bytes(b'no parquet')
  with pytest.raises(InputError, match='train-bad.parquet is no Parquet file'):
    open_source(files, 'train')
  monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
  with pytest.raises(InputError, match=r"pip install 'lasers_jax\[parquet\]'"):
    open_source(files, 'train')
