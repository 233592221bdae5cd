import collections
import itertools
import os
import pickle
import signal

import numpy as np
import pytest

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
from tests.data.made import Numbered, assert_equal, noise, save

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
  image = Numbered([(7, 4)])[0]['image']
  crop = center_crop(image, 4)
  assert crop.shape == (4, 4, 3)
  assert crop[0, 0, 1] == 1
  assert crop[0, 0, 2] == 0
  with pytest.raises(ValueError, match='no 5 x 5 crop in 7 x 4'):
    center_crop(image, 5)


def test_random_crop_reaches_every_place_equally():
  image = Numbered([(6, 5)])[0]['image']
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
  return Numbered([(12 + i % 3, 14) for i in range(24)])


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
    assert_equal(first.batch(step), second.batch(step))
  other = _pipeline(pictures, seed=4)
  assert (first.batch(0)['label'] != other.batch(0)['label']).any()


@pytest.mark.parametrize('start', [0, 5])
def test_iterate_resumes_at_any_step(pictures, start):
  pipeline = _pipeline(pictures)
  for step, batch in enumerate(
    itertools.islice(pipeline.iterate(start), 7), start
  ):
    assert_equal(batch, pipeline.batch(step))


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
    assert_equal(together, whole.batch(step))


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
  batch = TrainPipeline(Numbered([(9, 9)] * count), 16, 8).batch(2)
  assert batch['image'].shape == (16, 8, 8, 3)
  assert set(batch['label']) == set(range(count))


def test_resize_comes_before_the_crop_and_small_pictures_grow():
  resized = TrainPipeline(Numbered([(40, 60)]), 4, 8, resize=8).batch(0)
  # The shorter side is all there: rows 0 to 39 in 8 steps.
  assert np.ptp(resized['image'][:, :, 0, 1].astype(int), axis=1).min() > 30
  grown = TrainPipeline(Numbered([(4, 6)]), 4, 8).batch(0)
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
    TrainPipeline(Numbered([]), 4, 8)


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


class _Deadly(Numbered):
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
  pictures = Numbered([(4, 4)] * 3)
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
  source = Remembered(Numbered([(4, 4)]), resize_to_two)
  source[0]
  copy = pickle.loads(pickle.dumps(source))
  assert_equal({'image': copy[0]['image']}, {'image': source[0]['image']})
  assert copy._kept is not source._kept


def resize_to_two(image):
  return resize_shorter(image, 2)
