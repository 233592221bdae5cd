import collections
import itertools
import os
import pathlib
import pickle
import signal

import numpy as np
import pytest
from PIL import Image

from lasers_jax.core.padding import padded_side
from lasers_jax.data import (
  Remembered,
  TrainPipeline,
  center_crop,
  eval_batches,
  open_source,
  random_crop,
  resize_shorter,
)
from lasers_jax.errors import InputError, TrainingError
from tests.data.made import noise, save

_DATA = pathlib.Path(__file__).parents[3] / 'shared' / 'data'


class _Pictures:
  """Pictures in memory; pixel (y, x) of number i is (i, y, x)."""

  def __init__(self, shapes):
    self.name, self.split, self.classes = 'drawn', 'train', None
    self.shapes = shapes
    self.reads = collections.Counter()

  def __len__(self):
    return len(self.shapes)

  def __getitem__(self, index):
    self.reads[index] += 1
    image = np.empty((*self.shapes[index], 3), np.uint8)
    image[..., 0] = index
    image[..., 1] = np.arange(image.shape[0])[:, None]
    image[..., 2] = np.arange(image.shape[1])
    return {'image': image, 'label': index}


def _equal(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key])
    assert a[key].dtype == b[key].dtype


# Preparation of one picture


@pytest.mark.parametrize(
  ('shape', 'side', 'expected'),
  [
    ((40, 60), 20, (20, 30)),
    ((60, 41), 20, (29, 20)),
    ((7, 9), 14, (14, 18)),
    ((20, 90), 20, (20, 90)),
  ],
)
def test_resize_shorter(shape, side, expected):
  image = np.full((*shape, 3), 77, np.uint8)
  resized = resize_shorter(image, side)
  assert resized.shape == (*expected, 3)
  assert resized.dtype == np.uint8
  assert (resized == 77).all()


def test_resize_is_antialiased():
  stripes = np.zeros((64, 64, 3), np.uint8)
  stripes[:, ::2] = 255
  small = resize_shorter(stripes, 16)[2:-2, 2:-2].astype(int)
  assert abs(small - 127.5).max() < 8  # without antialias: 0 or 255


def test_center_crop():
  image = _Pictures([(7, 4)])[0]['image']
  crop = center_crop(image, 4)
  assert crop.shape == (4, 4, 3)
  assert crop[0, 0, 1] == 1
  assert crop[0, 0, 2] == 0
  with pytest.raises(ValueError, match='no 5 x 5 crop in 7 x 4'):
    center_crop(image, 5)


def test_random_crop_reaches_every_place_equally():
  image = _Pictures([(6, 5)])[0]['image']
  rng = np.random.default_rng(0)
  places = collections.Counter()
  for _ in range(600):
    crop = random_crop(image, 4, rng)
    assert crop.shape == (4, 4, 3)
    places[tuple(crop[0, 0, 1:].tolist())] += 1
  assert set(places) == set(itertools.product(range(3), range(2)))
  assert min(places.values()) > 60
  with pytest.raises(ValueError, match='no 6 x 6 crop'):
    random_crop(image, 6, rng)


# Training


@pytest.fixture(scope='module')
def pictures():
  return _Pictures([(12 + i % 3, 14) for i in range(24)])


def _pipeline(pictures, **changes):
  settings = {'batch_size': 8, 'size': 10, 'seed': 3} | changes
  return TrainPipeline(pictures, **settings)


def test_batch_has_the_shape_and_types(pictures):
  batch = _pipeline(pictures).batch(0)
  assert batch['image'].shape == (8, 10, 10, 3)
  assert batch['image'].dtype == np.uint8
  assert batch['label'].shape == (8,)
  assert batch['label'].dtype == np.int32
  np.testing.assert_array_equal(batch['image'][:, 0, 0, 0], batch['label'])


def test_batch_is_a_function_of_seed_and_step(pictures):
  first, second = _pipeline(pictures), _pipeline(pictures)
  for step in (7, 0, 1000003, 7):
    _equal(first.batch(step), second.batch(step))
  other = _pipeline(pictures, seed=4)
  assert (first.batch(0)['label'] != other.batch(0)['label']).any()


@pytest.mark.parametrize('start', [0, 5])
def test_iterate_resumes_at_any_step(pictures, start):
  pipeline = _pipeline(pictures)
  for step, batch in enumerate(
    itertools.islice(pipeline.iterate(start), 7), start
  ):
    _equal(batch, pipeline.batch(step))


@pytest.mark.parametrize('count', [2, 4])
def test_processes_together_make_the_same_batch(pictures, count):
  whole = _pipeline(pictures)
  parts = [
    _pipeline(pictures, process_index=i, process_count=count)
    for i in range(count)
  ]
  for step in (0, 1, 5):
    rows = [part.batch(step) for part in parts]
    together = {key: np.concatenate([r[key] for r in rows]) for key in rows[0]}
    _equal(together, whole.batch(step))


def test_each_epoch_has_every_picture_once_in_another_order(pictures):
  pipeline = _pipeline(pictures)
  orders = [
    np.concatenate([pipeline.batch(3 * e + i)['label'] for i in range(3)])
    for e in range(4)
  ]
  for order in orders:
    assert sorted(order) == list(range(24))
  assert len({tuple(order) for order in orders}) == 4


def test_a_picture_is_cut_anew_in_each_epoch(pictures):
  pipeline = _pipeline(pictures)
  seen = collections.defaultdict(set)
  for step in range(3 * 20):
    for image in pipeline.batch(step)['image']:
      seen[image[0, 0, 0]].add(image.tobytes())
  assert min(len(cuts) for cuts in seen.values()) >= 8


def test_crops_stay_inside_and_half_are_mirrored(pictures):
  pipeline = _pipeline(pictures)
  images = np.concatenate([pipeline.batch(step)['image'] for step in range(40)])
  # Rows rise by one; columns rise, or fall where the picture is mirrored.
  assert (np.diff(images[..., 1].astype(int), axis=1) == 1).all()
  steps = np.diff(images[..., 2].astype(int), axis=2)
  mirrored = steps[:, 0, 0] == -1
  assert (steps == np.where(mirrored, -1, 1)[:, None, None]).all()
  assert 0.4 < mirrored.mean() < 0.6
  assert set(np.unique(images[:, 0, :, 2].min(-1))) == set(range(5))


def test_flip_can_be_left_out(pictures):
  pipeline = _pipeline(pictures, flip=False)
  images = np.concatenate([pipeline.batch(step)['image'] for step in range(5)])
  assert (np.diff(images[..., 2].astype(int), axis=2) == 1).all()


@pytest.mark.parametrize('count', [1, 3])
def test_sets_smaller_than_a_batch(count):
  batch = TrainPipeline(_Pictures([(9, 9)] * count), 16, 8).batch(2)
  assert batch['image'].shape == (16, 8, 8, 3)
  assert set(batch['label']) == set(range(count))


def test_resize_comes_before_the_crop_and_small_pictures_grow():
  resized = TrainPipeline(_Pictures([(40, 60)]), 4, 8, resize=8).batch(0)
  # The shorter side is all there: rows 0 to 39 in 8 steps.
  assert np.ptp(resized['image'][:, :, 0, 1].astype(int), axis=1).min() > 30
  grown = TrainPipeline(_Pictures([(4, 6)]), 4, 8).batch(0)
  assert grown['image'].shape == (4, 8, 8, 3)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'batch_size': 6, 'process_count': 4}, 'batch_size 6 .* multiple of 4'),
    ({'batch_size': 0}, 'batch_size 0'),
    ({'resize': 9}, 'resize 9 is smaller than the crop 10'),
  ],
)
def test_sizes_that_do_not_fit(pictures, changes, message):
  with pytest.raises(InputError, match=message):
    _pipeline(pictures, **changes)
  settings = {'batch_size': 8, 'size': 10} | changes
  with pytest.raises(InputError, match=message):
    eval_batches(pictures, **settings)


def test_an_empty_split():
  with pytest.raises(InputError, match="'train' of drawn is empty"):
    TrainPipeline(_Pictures([]), 4, 8)


# What goes wrong on the way


@pytest.fixture
def folder(tmp_path):
  for i in range(12):
    save(tmp_path / f'{i:02}.png', noise(20, 24, seed=i))
  return tmp_path


def test_a_picture_that_goes_is_named_in_training(folder):
  pipeline = TrainPipeline(open_source(f'folder:{folder}', 'all'), 4, 16)
  batches = pipeline.iterate()
  (folder / '07.png').unlink()
  with pytest.raises(InputError, match='07.png can no longer be read'):
    for _ in range(10):
      next(batches)


@pytest.mark.parametrize('size', [16, None])
def test_a_picture_that_goes_is_named_in_evaluation(folder, size):
  source = open_source(f'folder:{folder}', 'all')
  (folder / '07.png').write_bytes((folder / '07.png').read_bytes()[:99])
  with pytest.raises(InputError, match='07.png can no longer be read'):
    list(eval_batches(source, 4, size))


def test_a_picture_that_goes_is_named_by_worker_processes(folder):
  source = open_source(f'folder:{folder}', 'all')
  (folder / '07.png').unlink()
  batches = TrainPipeline(source, 4, 16, workers=1).iterate()
  with pytest.raises(InputError, match='07.png can no longer be read'):
    for _ in range(10):
      next(batches)


class _Deadly(_Pictures):
  def __getitem__(self, index):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_process_that_was_killed_is_said():
  pipeline = TrainPipeline(_Deadly([(9, 9)] * 4), 4, 8, workers=1)
  with pytest.raises(TrainingError) as error:
    next(pipeline.iterate())
  said = str(error.value)
  assert 'a process that prepares images ended with code -9' in said
  assert 'lower --config.data.workers' in said
  assert '\n' not in said


# Memory


def test_remembered_reads_once_within_its_budget():
  pictures = _Pictures([(4, 4)] * 3)
  source = Remembered(pictures, lambda image: image[:2], budget=2 * 24)
  for _ in range(3):
    for i in range(3):
      item = source[i]
      assert item['image'].shape == (2, 4, 3)
      assert item['label'] == i
      assert (item['image'][..., 0] == i).all()
  assert pictures.reads == {0: 1, 1: 1, 2: 3}
  with pytest.raises(ValueError, match='read-only'):
    source[0]['image'][:] = 0


def test_remembered_is_copied_empty():
  source = Remembered(_Pictures([(4, 4)]), resize_to_two)
  source[0]
  copy = pickle.loads(pickle.dumps(source))
  _equal({'image': copy[0]['image']}, {'image': source[0]['image']})
  assert copy._kept is not source._kept


def resize_to_two(image):
  return resize_shorter(image, 2)


# Evaluation


@pytest.mark.parametrize(('count', 'batch_size'), [(7, 3), (6, 3), (2, 5)])
def test_evaluation_covers_each_picture_once(count, batch_size):
  pictures = _Pictures([(9 + i, 12) for i in range(count)])
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
  pictures = _Pictures([(9 + i % 3, 12) for i in range(10)])
  whole = list(eval_batches(pictures, 4, size))
  parts = [
    list(eval_batches(pictures, 4, size, process_index=i, process_count=2))
    for i in range(2)
  ]
  for batch, *rows in zip(whole, *parts, strict=True):
    assert all(len(part['index']) == 2 for part in rows)
    together = {key: np.concatenate([r[key] for r in rows]) for key in batch}
    _equal(together, batch)


def test_whole_pictures_are_padded_by_their_edge():
  shapes = [(9, 12), (12, 9), (10, 11), (12, 12), (16, 12), (9, 12)]
  pictures = _Pictures(shapes)
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
  pictures = _Pictures([(30, 20)])
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
