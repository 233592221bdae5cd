import logging
import os

import pytest
from PIL import Image

from lasers_jax.data import DataSettings, checking
from lasers_jax.data.folder import CHECKED
from lasers_jax.errors import InputError
from tests.data.made import noise, save


def _data(root, **changes):
  return DataSettings(name=f'folder:{root}', side=16, **changes)


@pytest.fixture
def pictures(tmp_path):
  for split in 'train', 'val':
    for i in range(40):
      path = tmp_path / 'set' / split / f'{i}.png'
      save(path, noise(12 + i % 2, 14, seed=i))
  return tmp_path / 'set'


def test_pictures_are_checked_once_for_a_workdir(
  pictures, tmp_path, monkeypatch
):
  looked, look = [], checking.look
  monkeypatch.setattr(
    checking, 'look', lambda path: [looked.append(path), look(path)][1]
  )
  workdir = str(tmp_path / 'runs' / 'new')
  data = _data(pictures)
  pipeline = data.train_pipeline(4, 0, workdir)
  data.open('validation', workdir)
  data.look_for('test', workdir)
  assert len(looked) == len(set(looked)) == 80
  assert os.listdir(workdir) == [CHECKED]
  looked.clear()
  again = _data(pictures).train_pipeline(4, 0, workdir)
  data.open('all', workdir)
  assert looked == []
  assert again.fingerprint == pipeline.fingerprint
  assert again.fingerprint == data.open('train', workdir).fingerprint


def test_sizes_are_checked_before_pictures(tmp_path):
  data = _data(tmp_path / 'none', resize=12)
  with pytest.raises(InputError, match='resize 12 is smaller than the crop 16'):
    data.train_pipeline(4, 0, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_a_picture_too_small_to_measure_is_named(pictures):
  Image.new('RGB', (30, 9)).save(pictures / 'val' / 'icon.png')
  Image.new('RGB', (1, 1)).save(pictures / 'val' / 'spot.png')
  data = _data(pictures, whole=True)
  with pytest.raises(InputError) as error:
    data.open('validation', minimum_side=11)
  assert str(error.value) == (
    f'{pictures}/val/icon.png is too small to be measured whole, as 2 of 42 '
    "images of 'validation': 9x30 pixels, and 11x11 are needed; take it "
    'away, or set data.resize'
  )
  data.open('train', minimum_side=11)
  # Crops and resized pictures are as large as they are to be.
  _data(pictures).open('validation', minimum_side=11)
  _data(pictures, whole=True, resize=16).open('validation', minimum_side=11)


def test_a_split_that_will_be_missed_is_said(pictures, caplog):
  data = _data(pictures, whole=True)
  with caplog.at_level(logging.WARNING):
    data.look_for('tset', None)
  (line,) = caplog.messages
  assert line.startswith("the split 'tset' will be missed: ")
  assert "no split 'tset': it has train, val, all" in line
