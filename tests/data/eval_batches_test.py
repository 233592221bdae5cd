"""Batches of evaluation: each picture once, whole or cropped."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from lasers_jax.core.padding import padded_side
from lasers_jax.data import (
  TrainPipeline,
  center_crop,
  eval_batches,
  open_source,
)
from tests.data.made import Numbered, assert_equal

_DATA = pathlib.Path(__file__).parents[3] / 'shared' / 'data'


@pytest.mark.parametrize(('count', 'batch_size'), [(7, 3), (6, 3), (2, 5)])
def test_evaluation_covers_each_picture_once(count, batch_size):
  pictures = Numbered([(9 + i, 12) for i in range(count)])
  batches = list(eval_batches(pictures, batch_size, 8))
  assert len(batches) == -(-count // batch_size)
  index = np.concatenate([batch['index'] for batch in batches])
  mask = np.concatenate([batch['mask'] for batch in batches])
  np.testing.assert_array_equal(index[mask], np.arange(count))
  assert (index[~mask] == -1).all()
  assert mask.dtype == bool
  for batch in batches:
    assert batch['image'].shape == (batch_size, 8, 8, 3)
    assert batch['image'].dtype == np.uint8
    assert (batch['height'] == 8).all()
    assert (batch['width'] == 8).all()
    np.testing.assert_array_equal(batch['label'], batch['index'])
    for image, i, real in zip(
      batch['image'], batch['index'], batch['mask'], strict=True
    ):
      expected = center_crop(pictures[i]['image'], 8) if real else 0
      np.testing.assert_array_equal(image, np.broadcast_to(expected, (8, 8, 3)))


@pytest.mark.parametrize('size', [8, None])
def test_evaluation_is_shared_by_processes(size):
  pictures = Numbered([(9 + i % 3, 12) for i in range(10)])
  whole = list(eval_batches(pictures, 4, size))
  parts = [
    list(eval_batches(pictures, 4, size, process_index=i, process_count=2))
    for i in range(2)
  ]
  for batch, *rows in zip(whole, *parts, strict=True):
    assert all(len(part['index']) == 2 for part in rows)
    together = {key: np.concatenate([r[key] for r in rows]) for key in batch}
    assert_equal(together, batch)


def test_whole_pictures_are_padded_by_their_edge():
  shapes = [(9, 12), (12, 9), (10, 11), (12, 12), (16, 12), (9, 12)]
  pictures = Numbered(shapes)
  batches = list(eval_batches(pictures, 2, None, pad_multiple=4))
  seen = []
  for batch in batches:
    assert len(batch['image']) == 2
    for row in np.flatnonzero(batch['mask']):
      i, height, width = (batch[k][row] for k in ('index', 'height', 'width'))
      seen.append(i)
      assert (height, width) == shapes[i]
      image = batch['image'][row]
      np.testing.assert_array_equal(
        image[:height, :width], pictures[i]['image']
      )
      assert (image[height:] == image[height - 1]).all()
      assert (image[:, width:] == image[:, width - 1 : width]).all()
      sides = (padded_side(side, 4) for side in shapes[i])
      assert image.shape == (*sides, 3)
  assert sorted(seen) == list(range(6))
  # To 12 x 12 but for one of 16 x 12; of the five, one fills it, and is alone.
  assert len(batches) == 4


def test_training_and_evaluation_prepare_alike():
  pictures = Numbered([(30, 20)])
  trained = TrainPipeline(pictures, 64, 10, resize=10, flip=False).batch(0)
  (evaluated,) = eval_batches(pictures, 1, None, resize=10)
  (height,), (width,) = evaluated['height'], evaluated['width']
  whole = evaluated['image'][0, :height, :width]
  assert whole.shape == (15, 10, 3)
  crops = {whole[t : t + 10].tobytes() for t in range(6)}
  assert {image.tobytes() for image in trained['image']} == crops


@pytest.mark.skipif(
  not _DATA.is_dir(), reason='no data folder beside the checkout'
)
def test_kodak_is_evaluated_whole():
  source = open_source(f'folder:{_DATA}/kodak', 'all')
  batches = list(eval_batches(source, 6, None, pad_multiple=8))
  shapes = {batch['image'].shape for batch in batches}
  assert shapes == {(6, 512, 768, 3), (6, 768, 512, 3)}
  index = np.concatenate([b['index'][b['mask']] for b in batches])
  assert sorted(index) == list(range(24))
  first = next(b for b in batches if 0 in b['index'])
  expected = np.asarray(Image.open(source.paths[0]).convert('RGB'))
  np.testing.assert_array_equal(
    first['image'][list(first['index']).index(0)], expected
  )
