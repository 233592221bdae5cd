"""Prepares images for training and evaluation, in the same way.

Training draws batches by index: the batch of a step is a pure function of
(seed, step), the same for any number of processes. Resuming is indexing.
"""

import collections
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lasers_jax.core import images
from lasers_jax.core.padding import pad
from lasers_jax.data.order import Order
from lasers_jax.data.resizing import resize_shorter
from lasers_jax.data.sources import Source
from lasers_jax.data.workers import in_order, iterate_by_workers
from lasers_jax.errors import InputError


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
  """Cuts the middle [size, size, 3] out of [h, w, 3].

  An odd remainder leaves the extra pixel at the bottom or right. Raises
  ValueError where the image is smaller.
  """
  _check_crop(image, size)
  return images.crop_center(image, size, size)


def random_crop(
  image: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """Cuts [size, size, 3] out of [h, w, 3], each place equally likely.

  Raises ValueError where the image is smaller.
  """
  _check_crop(image, size)
  top, left = (rng.integers(side - size + 1) for side in image.shape[:2])
  return image[top : top + size, left : left + size]


def _check_crop(image: np.ndarray, size: int) -> None:
  height, width = image.shape[:2]
  if min(height, width) < size:
    raise ValueError(f'no {size} x {size} crop in {height} x {width}')


def _fit(image: np.ndarray, size: int | None, resize: int | None):
  """Resizes to `resize`, or, without it, up to `size` where smaller."""
  if resize is not None:
    return resize_shorter(image, resize)
  if size is not None and min(image.shape[:2]) < size:
    return resize_shorter(image, size)
  return image


class Remembered:
  """A source that remembers prepared images, up to a number of bytes.

  An image is remembered once it was read. Those that no longer fit are prepared
  anew each time. Safe to use from many threads.

  Args:
    source: of the images.
    prepare: maps an image to an image, both uint8 [h, w, 3].
    budget: bytes to remember.
  """

  def __init__(
    self,
    source: Source,
    prepare: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    budget: int = 2 << 30,
  ):
    self.name, self.split = source.name, source.split
    self.classes = source.classes
    self._source, self._prepare = source, prepare
    self._kept: dict[int, dict] = {}
    self._budget, self._left, self._lock = budget, budget, threading.Lock()

  def __reduce__(self):  # a worker's copy starts empty
    return Remembered, (self._source, self._prepare, self._budget)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict:
    kept = self._kept.get(index)
    if kept is not None:
      return kept
    item = dict(self._source[index])
    item['image'] = np.ascontiguousarray(self._prepare(item['image']))
    item['image'].flags.writeable = False  # all later readers share it
    with self._lock:
      if index not in self._kept and item['image'].nbytes <= self._left:
        self._kept[index] = item
        self._left -= item['image'].nbytes
    return item


class TrainPipeline:
  """Batches for training: shuffled, endless, cropped, flipped, by index.

  Element j of the batch at a step is element step * batch_size + j of the
  shuffled, repeated source; its crop and flip are keyed by that number and the
  seed. Process p of P gets the p-th P-th of the rows, so that the global batch
  is the same, row for row, for every number of processes.

  Args:
    source: the images.
    batch_size: rows of the global batch; a multiple of `process_count`.
    size: side of the square crops.
    resize: shorter side before the crop. None leaves an image as it is, or
      enlarges it to `size` where it is smaller.
    flip: mirror an image, left to right, with probability 1/2.
    seed: of the order and the augmentation, 0 to 2**32 - 1.
    process_index, process_count: which rows to make.
    workers: processes that read images and remember nothing, for sets much
      larger than memory; they need Grain. 0 reads with threads, and remembers
      up to `budget` bytes of decoded, resized images.
    budget: bytes to remember.

  Raises InputError where sizes do not fit together.
  """

  def __init__(
    self,
    source: Source,
    batch_size: int,
    size: int,
    resize: int | None = None,
    flip: bool = True,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    budget: int = 2 << 30,
  ):
    _check_not_empty(source)
    check_sizes(batch_size, size, resize, process_count)
    self._workers, self._source = workers, source
    fit = functools.partial(_fit, size=size, resize=resize)
    self._images = Remembered(source, fit, budget=0 if workers else budget)
    self._order = Order(len(source), seed)
    self._rows = batch_size // process_count
    self._process = process_index, process_count
    self._size, self._flip = size, flip

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns the fingerprint of the source."""
    return self._source.fingerprint

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """Returns this process's rows of the batch at `step`, b of them.

    They are {'image': uint8 [b, size, size, 3], 'label': int32 [b]}.
    """
    index, count = self._process
    first = (step * count + index) * self._rows
    images = np.empty((self._rows, self._size, self._size, 3), np.uint8)
    labels = np.empty(self._rows, np.int32)
    for row in range(self._rows):
      item = self._images[self._order.index(first + row)]
      rng = self._order.generator(first + row)
      image = random_crop(item['image'], self._size, rng)
      if self._flip and rng.random() < 0.5:
        image = image[:, ::-1]
      images[row], labels[row] = image, item['label']
    return {'image': images, 'label': labels}

  def iterate(self, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields batch(start_step), batch(start_step + 1), ... without an end.

    Threads, or `workers` processes, make them ahead. Raises InputError where an
    image can no longer be read, and TrainingError where a process has ended.
    """
    if self._workers:
      return iterate_by_workers(self.batch, start_step, self._workers)
    return in_order(self.batch, itertools.count(start_step))


def eval_batches(
  source: Source,
  batch_size: int,
  size: int | None,
  resize: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  pad_multiple: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields every image once, in batches whose last rows may be padding.

  A batch is {'image': uint8 [b, h, w, 3], 'mask': bool [b], 'height', 'width',
  'index', 'label': int32 [b]}. `height` and `width` are of the image inside the
  padding; `index` is its place in the source. A padding row is zeros, with mask
  False, index and label -1 and the height and width of the first image.
  Process p of P gets the p-th P-th of each batch's rows; all processes yield
  equally many batches.

  With a `size`, images come in order, resized (as in `TrainPipeline`) and
  cropped to the middle. With `size` None they are whole. Their edge is repeated
  at the bottom and right up to one of few sizes, a multiple of `pad_multiple`
  (see `padding`). Images of one such size make a group, and those that need no
  padding make their own. A group is yielded when it is full, the rest at the
  end. Raises InputError where sizes do not fit together.
  """
  _check_not_empty(source)
  check_sizes(batch_size, size, resize, process_count)
  rows = batch_size // process_count
  mine = slice(process_index * rows, (process_index + 1) * rows)

  def prepare(index: int) -> dict:
    item = source[index]
    image = _fit(item['image'], size, resize)
    if size is not None:
      image = center_crop(image, size)
    height, width = image.shape[:2]
    if size is None:
      image = pad(image, pad_multiple)
    sizes = {'height': height, 'width': width}
    return {'image': image, **sizes, 'index': index, 'label': item['label']}

  return _grouped(len(source), prepare, batch_size, mine)


def _grouped(count: int, prepare, batch_size: int, mine: slice):
  """Collects prepared images by size; yields the rows `mine` of a batch."""
  groups = collections.defaultdict(list)
  for item in in_order(prepare, range(count)):
    sides, own = item['image'].shape[:2], (item['height'], item['width'])
    group = groups[sides, own == sides]
    group.append(item)
    if len(group) == batch_size:
      yield _padded_batch(group, batch_size, mine)
      group.clear()
  for group in groups.values():
    if group:
      yield _padded_batch(group, batch_size, mine)


def _padded_batch(group: list[dict], batch_size: int, mine: slice):
  image = np.zeros_like(group[0]['image'])
  blank = {**group[0], 'image': image, 'index': -1, 'label': -1}
  rows = (group + [blank] * (batch_size - len(group)))[mine]
  batch = {
    key: np.array([row[key] for row in rows], np.int32)
    for key in ('height', 'width', 'index', 'label')
  }
  batch['mask'] = batch['index'] >= 0
  batch['image'] = np.stack([row['image'] for row in rows])
  return batch


def _check_not_empty(source: Source) -> None:
  if len(source) == 0:
    raise InputError(f'the split {source.split!r} of {source.name} is empty')


def check_sizes(
  batch_size: int, size: int | None, resize: int | None, process_count: int
) -> None:
  """Raises InputError where sizes do not fit together."""
  if batch_size < 1 or batch_size % process_count:
    raise InputError(
      f'batch_size {batch_size} cannot be shared by {process_count} '
      f'processes: make it a multiple of {process_count}'
    )
  if size is not None and resize is not None and resize < size:
    raise InputError(
      f'resize {resize} is smaller than the crop {size}: make resize at least '
      f'{size}, or leave it out'
    )
