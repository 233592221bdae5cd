"""Pictures that several tests pack."""

import pytest

from tests.data.made import noise, save


@pytest.fixture
def folder(tmp_path):
  """Pictures in two classes and three splits; one is damaged."""
  root = tmp_path / 'pictures'
  save(root / 'val' / 'a' / 'x.png', noise(20, 24, seed=30))
  for i in range(10):
    ending = ('png', 'jpg')[i % 2]
    save(root / 'train' / 'ab'[i % 2] / f'{i}.{ending}', noise(20, 24, seed=i))
  for i in range(4):
    save(root / 'test' / 'b' / f'é{i}.png', noise(18, 17, seed=20 + i))
  (root / 'train' / 'a' / 'bad.jpg').write_bytes(b'\xff\xd8no picture')
  return root
