"""Images inside tar shards, against tarfile and the files they were made of."""

import io
import os
import tarfile

import numpy as np
import pytest

from lasers_jax.data import TrainPipeline, open_source, tar
from lasers_jax.data.packing import pack_splits
from lasers_jax.data.shards import Packing
from lasers_jax.data.stored import encode
from lasers_jax.errors import InputError
from tests.data.made import noise


def _png(seed, height=12):
  return encode(noise(height, 10, seed=seed), 'png')


def _shard(path, members, kind=tarfile.USTAR_FORMAT, mode='w'):
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, mode, format=kind) as file:
    for name, data in members:
      info = tarfile.TarInfo(name)
      info.size = len(data)
      file.addfile(info, io.BytesIO(data))
  return path


@pytest.fixture
def shards(tmp_path):
  """Two shards of training images with labels, one of test images."""
  for shard in range(2):
    members = []
    for i in range(3):
      seed = 3 * shard + i
      members.append((f'a/{seed:03}.png', _png(seed)))
      label = b'7' if shard == 0 else b'{"label": 8, "text": "x"}'
      members.append((f'a/{seed:03}.{("cls", "json")[shard]}', label))
    _shard(tmp_path / f'cats-train-{shard:04}.tar', members)
  _shard(tmp_path / 'val' / '0.tar', [(f'{i}.jpg', _png(i)) for i in range(2)])
  return f'tar:{tmp_path}/**/*.tar'


def test_images_labels_and_names(shards):
  source = open_source(shards, 'train')
  assert len(source) == 6
  for i in range(6):
    item = source[i]
    np.testing.assert_array_equal(item['image'], noise(12, 10, seed=i))
    assert item['label'] == (7, 8)[i // 3]
    assert source.stored(i).name == f'cats-train-000{i // 3}.tar/a/{i:03}'
  assert len(open_source(shards, 'validation')) == 2
  assert open_source(shards, 'validation')[0]['label'] == -1
  assert len(open_source(shards, 'all')) == 8
  part = open_source(shards, 'train[2:4]')
  np.testing.assert_array_equal(part[0]['image'], source[2]['image'])
  assert len(part) == 2
  assert source.fingerprint != part.fingerprint
  with pytest.raises(InputError, match="no split 'holiday'"):
    open_source(shards, 'holiday')


def test_shards_without_a_split_are_held_out_by_hash(tmp_path):
  members = [(f'{i}.png', _png(i)) for i in range(40)]
  _shard(tmp_path / 'cats.tar', members)
  names = {}
  for split in 'train', 'validation', 'test', 'all':
    source = open_source(f'tar:{tmp_path}/cats.tar', split)
    names[split] = {source.stored(i).name for i in range(len(source))}
  assert names['train'] | names['validation'] | names['test'] == names['all']
  assert sum(map(len, names.values())) == 80
  assert len(names['train']) > 20


def test_the_index_is_made_once_and_again_where_the_shard_changed(
  shards, tmp_path, monkeypatch
):
  made, index_shard = [], tar.index_shard
  monkeypatch.setattr(
    tar, 'index_shard', lambda path: [made.append(path), index_shard(path)][1]
  )
  first = open_source(shards, 'all').fingerprint
  assert len(made) == 3
  assert open_source(shards, 'all').fingerprint == first
  path = tmp_path / 'cats-train-0001.tar'
  _shard(path, [('b.png', _png(9)), ('a.png', _png(10))])
  assert len(open_source(shards, 'all')) == 7
  assert made[3:] == [str(path)]
  # A damaged index is made anew.
  index = tmp_path / 'cats-train-0001.tar.index.npz'
  index.write_bytes(index.read_bytes()[:-50])
  assert len(open_source(shards, 'all')) == 7
  assert made[4:] == [str(path)]


def test_where_nothing_can_be_written_the_index_is_in_the_cache(
  shards, tmp_path, monkeypatch
):
  monkeypatch.setattr(tar, 'CACHE', str(tmp_path / 'cache'))
  written = tar._write_index
  monkeypatch.setattr(
    tar, '_write_index',
    lambda path, *rest: 'cache' in path and written(path, *rest),
  )  # fmt: skip
  open_source(shards, 'train')
  assert len(os.listdir(tmp_path / 'cache' / 'tar')) == 2
  monkeypatch.setattr(tar, 'index_shard', None)
  assert len(open_source(shards, 'train')) == 6


@pytest.mark.parametrize('kind', [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(tmp_path, kind):
  folder = 'ü' * 90 + '/' + 'b' * 150
  members = [(f'{folder}/{i}.png', _png(i)) for i in range(3)]
  members += [(f'{folder}/{i}.cls', b'%d' % i) for i in range(3)]
  _shard(tmp_path / 'a.tar', members, kind)
  source = open_source(f'tar:{tmp_path}/a.tar', 'all')
  for i in range(3):
    assert source.stored(i).name == f'a.tar/{folder}/{i}'
    assert source[i]['label'] == i
    np.testing.assert_array_equal(source[i]['image'], noise(12, 10, seed=i))


def test_what_is_left_out_is_said(tmp_path, caplog):
  path = _shard(
    tmp_path / 'a.tar',
    [
      ('0.png', _png(0)),
      ('0.jpg', _png(1)),  # a second image of the key
      ('0.seg.png', _png(2)),  # of another kind
      ('0.cls', b'3'),
      ('0.json', b'{"label": 4}'),
      ('1.png', _png(3)[:60]),
      ('1.cls', b'no number'),
      ('2.txt', b'words'),
      ('._2.png', _png(4)),
      ('2.PNG', _png(5)),
      ('2.png', _png(6)),  # the key again
      ('2.json', b'[1'),
    ],
  )
  source = open_source(f'tar:{path}', 'all')
  assert [source.stored(i).name for i in range(2)] == ['a.tar/0', 'a.tar/2']
  assert [source[i]['label'] for i in range(len(source))] == [3, -1]
  np.testing.assert_array_equal(source[1]['image'], noise(12, 10, seed=5))
  (line,) = [x for x in caplog.messages if 'left out' in x]
  assert 'a further image of a key: 2 (a.tar/0.jpg, ...)' in line
  assert 'a further label of a key: 1 (a.tar/0.json)' in line
  assert 'cannot be read' in line


@pytest.mark.parametrize('cut', [20, 300, 512, 900])
def test_a_truncated_shard_gives_what_is_whole(tmp_path, cut, caplog):
  members = [(f'{i}.png', _png(i, 60)) for i in range(5)]
  path = _shard(tmp_path / 'a.tar', members)
  with tarfile.open(path) as file:
    last = file.getmembers()[-1]
  path.write_bytes(path.read_bytes()[: last.offset + cut])
  source = open_source(f'tar:{path}', 'all')
  assert len(source) == 4
  np.testing.assert_array_equal(source[3]['image'], noise(60, 10, seed=3))
  assert any('left out' in x for x in caplog.messages)


def test_a_damaged_header_is_said(tmp_path, caplog):
  path = _shard(tmp_path / 'a.tar', [(f'{i}.png', _png(i)) for i in range(3)])
  with tarfile.open(path) as file:
    place = file.getmembers()[1].offset
  data = bytearray(path.read_bytes())
  data[place : place + 50] = b'x' * 50
  path.write_bytes(data)
  assert len(open_source(f'tar:{path}', 'all')) == 1
  assert any('what follows a damaged place' in x for x in caplog.messages)


def test_errors_are_one_line(tmp_path):
  with pytest.raises(InputError, match='names no file: check the path'):
    open_source(f'tar:{tmp_path}/*.tar', 'train')
  with pytest.raises(InputError, match='needs a path or a glob'):
    open_source('tar', 'train')
  with pytest.raises(InputError, match='read from disks alone: copy the files'):
    open_source('tar:gs://bucket/a.tar', 'train')
  _shard(tmp_path / 'a.tar.gz', [('a.png', _png(0))], mode='w:gz')
  with pytest.raises(InputError, match=r'compressed \(gzip\), and .* unpack'):
    open_source(f'tar:{tmp_path}/a.tar.gz', 'all')
  (tmp_path / 'b.tar').write_bytes(b'no tar file' * 99)
  with pytest.raises(InputError, match='b.tar is no tar file'):
    open_source(f'tar:{tmp_path}/b.tar', 'all')
  _shard(tmp_path / 'c.tar', [('a.txt', b'words'), ('b.png', b'no image')])
  with pytest.raises(InputError, match='no image for the split .*cannot be re'):
    open_source(f'tar:{tmp_path}/c.tar', 'all')
  path = _shard(tmp_path / 'd.tar', [('a.png', _png(0))])
  source = open_source(f'tar:{path}', 'all')
  path.unlink()
  with pytest.raises(InputError, match='a of .*d.tar can no longer be read'):
    source[0]


def test_training_and_packing(shards, tmp_path):
  source = open_source(shards, 'train')
  target = str(tmp_path / 'records')
  packed = pack_splits(shards, target, Packing(per_shard=4))
  assert {x: sum(m.counts) for x, m in packed.items()} == {
    'train': 6, 'validation': 2,
  }  # fmt: skip
  ours = open_source(f'records:{target}', 'train')
  assert [ours.stored(i) for i in range(6)] == [
    source.stored(i) for i in range(6)
  ]
  one, other = (TrainPipeline(x, 4, 8, seed=1).batch(3) for x in (source, ours))
  np.testing.assert_array_equal(one['image'], other['image'])
  np.testing.assert_array_equal(one['label'], other['label'])
