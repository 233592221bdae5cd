"""What tests of packed images share: pictures, a source, comparisons."""

import numpy as np

from lasers_jax.data.shards import Packing
from lasers_jax.data.stored import encode
from tests.data.made import noise

SMALL = Packing(per_shard=3)


class Arrays:
  """A source that has arrays alone."""

  name, split, classes = 'arrays', 'train', None
  fingerprint = {'count': 5, 'hash': 'x'}  # noqa: RUF012

  def __len__(self):
    return 5

  def __getitem__(self, index):
    return {'image': noise(40, 30, seed=index), 'label': index}


def assert_equal(ours, theirs):
  assert len(ours) == len(theirs)
  for i in range(len(theirs)):
    np.testing.assert_array_equal(ours[i]['image'], theirs[i]['image'])
    assert ours[i]['label'] == theirs[i]['label']


def files_of(root):
  return {
    path.relative_to(root).as_posix(): path.read_bytes()
    for path in sorted(root.rglob('*'))
    if path.is_file() and path.name != 'checked.npy'
  }


def png(array):
  return encode(array, 'png')
