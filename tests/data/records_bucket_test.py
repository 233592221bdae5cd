"""Packing to a bucket, and training from it: gs:// on this machine."""

import numpy as np
import pytest

from lasers_jax.core import storage
from lasers_jax.data import DataSettings, open_source
from lasers_jax.data.packing import pack_splits
from lasers_jax.data.shards import Packing
from lasers_jax.errors import InputError
from tests.data.made import noise, save


@pytest.fixture
def pictures(tmp_path):
  for split in 'train', 'val', 'test':
    for i in range(5):
      path = tmp_path / 'set' / split / 'ab'[i % 2] / f'{i}.png'
      save(path, noise(20, 24, seed=i))
  return f'folder:{tmp_path}/set'


def test_pack_to_a_bucket_and_train_from_it(pictures, gs_folder, monkeypatch):
  packing = Packing(per_shard=2)
  # Interrupted after the first shard, and taken up.
  from lasers_jax.data import packing as module

  write_shard, written = module.write_shard, []

  def interrupted(job, *args):
    if written:
      raise KeyboardInterrupt
    written.append(job)
    return write_shard(job, *args)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(module, 'write_shard', interrupted)
    pack_splits(pictures, gs_folder, packing)
  with pytest.raises(InputError, match='not packed to its end'):
    open_source(f'records:{gs_folder}', 'train')
  packed = pack_splits(pictures, gs_folder, packing)
  assert packed['train'].counts == [2, 2, 1]
  assert storage.names(f'{gs_folder}/train') == [
    '00000.array_record', '00001.array_record', '00002.array_record',
    'records.json',
  ]  # fmt: skip
  one, other = (
    DataSettings(name, 16).train_pipeline(4, 0).batch(2)
    for name in (pictures, f'records:{gs_folder}')
  )
  np.testing.assert_array_equal(one['image'], other['image'])
  np.testing.assert_array_equal(one['label'], other['label'])
  with pytest.raises(InputError, match="no split 'holiday': it has test, tr"):
    open_source(f'records:{gs_folder}', 'holiday')


def test_a_target_on_s3_is_refused(pictures):
  with pytest.raises(InputError, match='from gs:// and disks alone'):
    pack_splits(pictures, 's3://bucket/records', Packing())
