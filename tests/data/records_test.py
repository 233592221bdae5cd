"""Packing and reading back: the same images, labels and batches."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from lasers_jax.data import (
  DataSettings,
  TrainPipeline,
  open_source,
  resize_shorter,
)
from lasers_jax.data.packing import pack, pack_splits
from lasers_jax.data.records import MANIFEST, read_manifest
from lasers_jax.data.shards import Packing
from lasers_jax.errors import InputError
from tests.data.made import image_feature, noise, write_tfds
from tests.data.packed import SMALL, Arrays, assert_equal, png

ROOT = pathlib.Path(__file__).parents[2]


def test_a_folder_is_packed_as_it_is(folder, tmp_path):
  target = tmp_path / 'records'
  packed = pack_splits(f'folder:{folder}', str(target), SMALL)
  assert {x: m.counts for x, m in packed.items()} == {
    'train': [3, 3, 3, 1],
    'validation': [1],
    'test': [3, 1],
  }
  for split in packed:
    ours = open_source(f'records:{target}', split)
    theirs = open_source(f'folder:{folder}', split)
    assert_equal(ours, theirs)
    assert ours.classes == theirs.classes == ['a', 'b']
    for i in range(len(theirs)):
      assert ours.stored(i) == theirs.stored(i)
    assert ours.fingerprint['count'] == len(theirs)
  assert sorted(os.listdir(target / 'test')) == [
    '00000.array_record', '00001.array_record', MANIFEST,
  ]  # fmt: skip


def test_batches_are_those_of_the_folder(folder, tmp_path):
  pack_splits(f'folder:{folder}', str(tmp_path / 'records'), SMALL)
  batches = []
  for name in f'folder:{folder}', f'records:{tmp_path / "records"}':
    pipeline = DataSettings(name=name, side=16).train_pipeline(4, seed=3)
    batches.append([pipeline.batch(step) for step in (0, 1, 7)])
  for one, other in zip(*batches, strict=True):
    np.testing.assert_array_equal(one['image'], other['image'])
    np.testing.assert_array_equal(one['label'], other['label'])


@pytest.mark.slow
def test_a_run_on_records_is_that_on_the_folder(tiny_run, tmp_path):
  from lasers_jax.experiment import loop
  from tests import tiny

  root, config = tmp_path / 'records', tiny_run.config
  pack_splits(config['data']['name'], str(root), Packing(per_shard=5))
  data = {**config['data'], 'name': f'records:{root}'}
  config = {**config, 'data': data, 'evaluate_every': 0}
  state = loop.train_and_evaluate(config, str(tmp_path / 'run'))
  tiny.assert_identical(tiny.on_host(state), tiny_run.state)


def test_slices_are_those_of_tfds(tmp_path):
  features = {'image': image_feature(), 'label': {}}
  class_label = {
    'pythonClassName': 'tensorflow_datasets.core.features.class_label_feature.'
    'ClassLabel',
    'classLabel': {'numClasses': '3'},
  }
  features['label'] = class_label
  images = [
    {'image': png(noise(9, 8, seed=i)), 'label': i % 3} for i in range(11)
  ]
  write_tfds(tmp_path / 'tfds', 'dots', features, images)
  options = {'root': str(tmp_path / 'tfds')}
  target = str(tmp_path / 'records')
  pack_splits('dots', target, Packing(per_shard=4), options=options)
  for split in (
    'train', 'train[:5]', 'train[3:]', 'train[:25%]', 'train[25%:]',
    'train[-3:]', 'train[2:-3]', 'train[:35%]',
  ):  # fmt: skip
    theirs = open_source('dots', split, options=options)
    assert_equal(open_source(f'records:{target}', split), theirs)
  parts = 'train', 'train[:5]', 'train[5:10]'
  found = [open_source(f'records:{target}', x).fingerprint for x in parts]
  assert [x['count'] for x in found] == [11, 5, 5]
  assert len({x['hash'] for x in found}) == 3
  for split in 'train[11:]', 'train[a:]', 'train[5]':
    with pytest.raises(InputError, match='takes no image|has no split'):
      open_source(f'records:{target}', split)


def test_arrays_are_packed_without_loss(tmp_path, monkeypatch):
  monkeypatch.setattr(
    Arrays,
    '__getitem__',
    lambda _, i: {'image': noise(40, 30, seed=i), 'label': np.int64(i)},
  )
  pack(Arrays(), str(tmp_path), SMALL)
  assert_equal(open_source(f'records:{tmp_path}', 'train'), Arrays())


@pytest.mark.parametrize('encoding', ['png', 'jpeg'])
def test_images_are_reduced_to_the_side(tmp_path, encoding, monkeypatch):
  smooth = [
    np.linspace(i, 200, 40 * 30 * 3).reshape(40, 30, 3) for i in range(5)
  ]
  images = [image.astype(np.uint8) for image in smooth]
  monkeypatch.setattr(
    Arrays, '__getitem__', lambda _, i: {'image': images[i], 'label': i}
  )
  pack(Arrays(), str(tmp_path), Packing(20, encoding, 90, 4))
  found = open_source(f'records:{tmp_path}', 'train')
  for i in range(5):
    wanted = resize_shorter(images[i], 20)
    assert wanted.shape == found[i]['image'].shape == (27, 20, 3)
    if encoding == 'png':
      np.testing.assert_array_equal(found[i]['image'], wanted)
    else:
      error = found[i]['image'].astype(float) - wanted
      assert np.sqrt(np.mean(error**2)) < 2
      assert found.stored(i).image[:2] == b'\xff\xd8'
  plan = read_manifest(str(tmp_path / 'train')).plan
  assert plan['quality'] == (90 if encoding == 'jpeg' else None)


def test_smaller_images_are_kept_as_they_are(folder, tmp_path):
  target = tmp_path / 'records'
  pack_splits(f'folder:{folder}', str(target), Packing(20, per_shard=9))
  theirs = open_source(f'folder:{folder}', 'train')
  ours = open_source(f'records:{target}', 'train')
  assert [ours.stored(i) for i in range(10)] == [
    theirs.stored(i) for i in range(10)
  ]


def test_the_hash_is_of_the_list_whatever_the_shards(folder, tmp_path):
  hashes = set()
  for per_shard in 2, 5:
    target = str(tmp_path / str(per_shard))
    pack_splits(f'folder:{folder}', target, Packing(per_shard=per_shard))
    hashes.add(open_source(f'records:{target}', 'train').fingerprint['hash'])
  assert len(hashes) == 1


def test_records_that_are_not_there_are_one_line(tmp_path):
  with pytest.raises(InputError, match="no packed images in '.*nowhere'"):
    open_source(f'records:{tmp_path}/nowhere', 'train')
  with pytest.raises(InputError, match='needs a path'):
    open_source('records', 'train')
  with pytest.raises(InputError, match='gs:// and local files'):
    open_source('records:s3://bucket/x', 'train')
  pack(Arrays(), str(tmp_path), SMALL)
  with pytest.raises(InputError, match="no split 'test': it has train"):
    open_source(f'records:{tmp_path}', 'test')


def test_damaged_records_are_one_line(tmp_path):
  pack(Arrays(), str(tmp_path), SMALL)
  name, shard = f'records:{tmp_path}', tmp_path / 'train' / '00000.array_record'
  data = bytearray(shard.read_bytes())
  place = data.index(open_source(name, 'train').stored(1).image)
  data[place : place + 2000] = bytes(2000)
  shard.write_bytes(data)
  source = open_source(name, 'train')
  with pytest.raises(InputError, match="of 'train' cannot be read"):
    [source[i] for i in range(3)]
  shard.write_bytes(data[:-9])
  with pytest.raises(InputError, match='has .* bytes, and .* were packed'):
    open_source(name, 'train')
  shard.unlink()
  with pytest.raises(InputError, match='00000.array_record is missing, and'):
    open_source(name, 'train')
  path = tmp_path / 'train' / MANIFEST
  text = path.read_text()
  path.write_text(text.replace('"format": 1', '"format": 2'))
  with pytest.raises(InputError, match='has the format 2.*update lasers_jax'):
    open_source(name, 'train')
  path.write_text(text[:-30])
  with pytest.raises(InputError, match='is damaged .*pack the images anew'):
    open_source(name, 'train')


def test_images_packed_too_small_are_refused(tmp_path):
  pack(Arrays(), str(tmp_path), Packing(16, per_shard=9))
  data = DataSettings(name=f'records:{tmp_path}', side=20)
  with pytest.raises(InputError, match='with --side=16, and training needs 20'):
    data.train_pipeline(4, 0)


def test_a_million_records_open_at_once(tmp_path):
  """Nothing is read but the manifest, whose size is that of the shards."""
  pack(Arrays(), str(tmp_path), Packing(per_shard=5))
  path = tmp_path / 'train' / MANIFEST
  manifest = json.loads(path.read_text())
  shard = tmp_path / 'train' / '00000.array_record'
  count = 250
  for i in range(1, count):
    os.link(shard, tmp_path / 'train' / f'{i:05}.array_record')
  manifest['counts'] *= count
  manifest['sizes'] *= count
  path.write_text(json.dumps(manifest))
  start = time.process_time()
  source = open_source(f'records:{tmp_path}', 'train')
  assert time.process_time() - start < 1
  assert len(source) == 5 * count
  assert source[5 * count - 1]['label'] == 4


@pytest.mark.slow
def test_records_need_neither_grain_nor_tfds(folder, tmp_path):
  target = tmp_path / 'records'
  pack_splits(f'folder:{folder}', str(target), SMALL)
  program = (
    'import sys\n'
    'for name in "grain tensorflow_datasets tensorflow simplejpeg".split():\n'
    '  sys.modules[name] = None\n'
    'from lasers_jax.data import TrainPipeline, eval_batches, open_source\n'
    f'source = open_source("records:{target}", "train")\n'
    'pipeline = TrainPipeline(source, 4, 16, seed=3)\n'
    'batch = next(pipeline.iterate(2))\n'
    'print(int(batch["image"].sum()), len([*eval_batches(source, 4, 16)]))\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr
  source = open_source(f'folder:{folder}', 'train')
  batch = TrainPipeline(source, 4, 16, seed=3).batch(2)
  assert done.stdout.split() == [str(batch['image'].sum()), '3']
