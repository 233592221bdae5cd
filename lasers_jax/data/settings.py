"""The data section of a config, which opens and prepares the images."""

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.core.ranges import Count, Whole
from lasers_jax.data.opening import open_source
from lasers_jax.data.pipeline import TrainPipeline, check_sizes, eval_batches
from lasers_jax.data.records import RecordsSource
from lasers_jax.data.sources import ImageFiles, Images, Source
from lasers_jax.data.stored import Reduced, StoredImages
from lasers_jax.errors import InputError

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Settings of the images of a run, and of their preparation.

  Attributes:
    name: 'photos', 'folder:PATH', a tfds name, or 'SCHEME:REST' of a source
      that is registered; see `open_source`.
    side: of the square crops that training sees.
    train, validation, test: names of the splits to train on, to validate with
      during training, and to report results of.
    resize: the shorter side of an image before it is cropped; None keeps it.
    flip: whether to mirror half of the training images.
    whole: whether to evaluate whole images rather than their central crop.
    options: of the source, such as `held_out` of `open_photos`.
    workers: processes that decode; 0 decodes in threads and remembers images of
      a small set.
    dct_scaling: whether training decodes JPEGs at a half, a quarter or an
      eighth of their size, as long as no side is shorter than `resize`: faster
      where images are more than twice as large, with slightly other pixels.
      Evaluation never does.
  """

  name: str
  side: Count
  train: str = 'train'
  validation: str = 'validation'
  test: str = 'test'
  resize: Count | None = None
  flip: bool = True
  whole: bool = False
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  workers: Whole = 0
  dct_scaling: bool = False

  def open(
    self, split: str, workdir: str | None = None, minimum_side: int = 1
  ) -> Source:
    """Opens a split, and checks it.

    Args:
      split: the name of the split.
      workdir: a folder that remembers which images are good; None reads all of
        them each time.
      minimum_side: with `whole`, the minimum of the shorter side of an image.

    Raises:
      InputError: the split cannot be used.
    """
    source = open_source(self.name, split, workdir, self.options)
    if self.whole and self.resize is None:
      _check_sides(source, minimum_side)
    return source

  def look_for(
    self, split: str, workdir: str, minimum_side: int = 1
  ) -> Source | None:
    """Opens a split that is needed later; logs a warning where that fails."""
    try:
      return self.open(split, workdir, minimum_side)
    except InputError as error:
      if jax.process_index() == 0:
        _log.warning('the split %r will be missed: %s', split, error)
      return None

  def fingerprints(self, workdir: str) -> dict[str, dict[str, Any]]:
    """Opens all splits, and returns the fingerprint of each by its name."""
    splits = self.train, self.validation, self.test
    return {x: self.open(x, workdir).fingerprint for x in splits}

  def train_pipeline(
    self,
    batch_size: int,
    seed: int,
    workdir: str | None = None,
    source: Source | None = None,
  ) -> TrainPipeline:
    """Opens the training split as batches: this process's rows of them.

    Args:
      batch_size: rows of the batch of all processes.
      seed: of the order and the augmentation.
      workdir: see `open`.
      source: the training images; None opens the training split.
    """
    processes = jax.process_count()
    check_sizes(batch_size, self.side, self.resize, processes)
    source = source or self.open(self.train, workdir)
    _check_packed(source, self.resize or self.side)
    if self.dct_scaling:
      source = self._reduced(source)
    return TrainPipeline(
      source,
      batch_size,
      self.side,
      resize=self.resize,
      flip=self.flip,
      seed=seed,
      process_index=jax.process_index(),
      process_count=processes,
      workers=self.workers,
    )

  def _reduced(self, source: Source) -> Source:
    """Returns the source as `dct_scaling` decodes it; arrays as they are."""
    if self.resize is None:
      raise InputError(
        'data.dct_scaling=True needs data.resize, the shorter side that '
        'images are decoded for'
      )
    if not isinstance(source, StoredImages):
      return source
    return Reduced(source, self.resize)

  def evaluation_batches(
    self, source: Images, batch_size: int, pad_multiple: int
  ) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of an open split, once; see `eval_batches`."""
    return eval_batches(
      source,
      batch_size,
      None if self.whole else self.side,
      resize=self.resize,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      pad_multiple=pad_multiple,
    )

  def first_images(self, source: Images, count: int) -> list[np.ndarray]:
    """Returns the first images uint8 [h, w, 3], as evaluation prepares them."""
    size = None if self.whole else self.side
    batches = eval_batches(source, 1, size, resize=self.resize)
    return [
      batch['image'][0, : batch['height'][0], : batch['width'][0]]
      for batch in itertools.islice(batches, count)
    ]

  def describe(self, split: str) -> dict[str, Any]:
    """Returns the part of the results that describes their data."""
    return {
      'data': self.name,
      'split': split,
      'resize': self.resize and f'shorter side {self.resize}, bicubic',
      'crop': None if self.whole else f'centre {self.side}x{self.side}',
    }


def _check_packed(source: Source, needed: int) -> None:
  """Raises InputError where images were packed smaller than training needs."""
  side = source.side if isinstance(source, RecordsSource) else None
  if side and side < needed:
    raise InputError(
      f'{source.name} was packed with --side={side}, and training needs '
      f'{needed} (data.resize or data.side): pack the images with '
      f'--side={needed}, or lower it'
    )


def _check_sides(source: Source, minimum: int) -> None:
  """Raises InputError where an image, whose size is known, is too small."""
  if not isinstance(source, ImageFiles):
    return
  small = [
    (path, size)
    for path, size in zip(source.paths, source.sizes, strict=False)
    if min(size) < minimum
  ]
  if small:
    path, (height, width) = small[0]
    raise InputError(
      f'{path} is too small to be measured whole, as {len(small)} of '
      f'{len(source)} images of {source.split!r}: {height}x{width} pixels, '
      f'and {minimum}x{minimum} are needed; take it away, or set data.resize'
    )
