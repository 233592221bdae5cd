"""Which pictures a run uses, from the words of its config."""

import concurrent.futures
import dataclasses
import functools
import itertools
import logging
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from lasers_jax.core.ranges import Count, Whole
from lasers_jax.data.opening import open_source
from lasers_jax.data.pipeline import TrainPipeline, check_sizes, eval_batches
from lasers_jax.data.sources import PictureFiles, Source
from lasers_jax.errors import InputError

_log = logging.getLogger(__name__)

# Beside a run: which pictures were read to their ends and found good.
CHECKED = 'checked.npy'
_TURN = 10.0  # seconds that processes wait before they ask again


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Which pictures, and how they are prepared.

  Attributes:
    name: 'photos', a tfds name, or 'folder:PATH'.
    side: of the square crops that training sees.
    train, validation, test: the splits to train on, to watch, to report.
    resize: the shorter side of a picture before it is cropped; None keeps it.
    flip: mirror half of the training pictures.
    whole: evaluate whole pictures rather than their central crop.
    held_out: of 'photos', the pictures of 'validation' and 'test', where other
      than `open_photos` holds out.
    workers: processes that decode; 0 decodes in threads and keeps a small
      set in memory.
  """

  name: str
  side: Count
  train: str = 'train'
  validation: str = 'validation'
  test: str = 'test'
  resize: Count | None = None
  flip: bool = True
  whole: bool = False
  held_out: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict
  )
  workers: Whole = 0

  def open(
    self, split: str, workdir: str | None = None, least: int = 1
  ) -> Source:
    """Opens a split, checked; in a run of several processes, by the first one.

    Args:
      split: its name.
      workdir: where it is remembered which pictures were good; None reads all
        of them again each time.
      least: with `whole`, the shorter side that each picture must have.

    Raises:
      InputError: it cannot be used.
    """
    checked = workdir and os.path.join(workdir, CHECKED)
    open_ = functools.partial(
      open_source, self.name, split, held_out=self.held_out, checked=checked
    )
    is_folder = self.name.partition(':')[0] == 'folder'
    source = _by_the_first(open_) if is_folder else open_()
    if self.whole and self.resize is None:
      _check_least(source, least)
    return source

  def look_for(self, split: str, workdir: str, least: int = 1) -> Source | None:
    """Opens a split that is wanted later; logs a line where that fails."""
    try:
      return self.open(split, workdir, least)
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
    """Opens the training split as batches, this process's rows of them.

    Args:
      source: its images, where they are open already.
    """
    processes = jax.process_count()
    check_sizes(batch_size, self.side, self.resize, processes)
    return TrainPipeline(
      source or self.open(self.train, workdir),
      batch_size,
      self.side,
      resize=self.resize,
      flip=self.flip,
      seed=seed,
      process_index=jax.process_index(),
      process_count=processes,
      workers=self.workers,
    )

  def evaluation_batches(
    self, source: Source, batch_size: int, pad_multiple: int
  ) -> Iterator[dict[str, np.ndarray]]:
    """Goes once through an open split; see `eval_batches`."""
    return eval_batches(
      source,
      batch_size,
      None if self.whole else self.side,
      resize=self.resize,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      pad_multiple=pad_multiple,
    )

  def first_images(self, source: Source, count: int) -> list[np.ndarray]:
    """The first pictures uint8 [h, w, 3] of a split as evaluation sees them."""
    size = None if self.whole else self.side
    batches = eval_batches(source, 1, size, resize=self.resize)
    return [
      batch['image'][0, : batch['height'][0], : batch['width'][0]]
      for batch in itertools.islice(batches, count)
    ]

  def describe(self, split: str) -> dict[str, Any]:
    """What results say of their data."""
    return {
      'data': self.name,
      'split': split,
      'resize': self.resize and f'shorter side {self.resize}, bicubic',
      'crop': None if self.whole else f'centre {self.side}x{self.side}',
    }


def _check_least(source: Source, least: int) -> None:
  """Raises InputError where a picture, whose size is known, is too small."""
  if not isinstance(source, PictureFiles):
    return
  small = [
    (path, size)
    for path, size in zip(source.paths, source.sizes, strict=False)
    if min(size) < least
  ]
  if small:
    path, (height, width) = small[0]
    raise InputError(
      f'{path} is too small to be measured whole, as {len(small)} of '
      f'{len(source)} pictures of {source.split!r}: {height}x{width} pixels, '
      f'and {least}x{least} are needed; take it away, or set data.resize'
    )


def _by_the_first(open_: Callable[[], Source]) -> Source:
  """Opens a source in the first process alone, and gives it to all.

  Raises what opening raised, in all of them.
  """
  if jax.process_count() == 1:
    return open_()
  work: concurrent.futures.Future = concurrent.futures.Future()
  if jax.process_index() == 0:
    # No executor: who interrupts would wait for its threads.
    threading.Thread(target=_do, args=(work, open_), daemon=True).start()
  # What takes long must not look like a process that hangs.
  while not broadcast_one_to_all(np.bool_(_is_done(work))):
    pass
  outcome = _tell_all(work.result() if work.done() else None)
  if isinstance(outcome, Exception):
    raise outcome
  return outcome


def _do(work: concurrent.futures.Future, open_: Callable[[], Source]) -> None:
  try:
    work.set_result(open_())
  except Exception as error:  # It is raised in all processes.
    work.set_result(error)


def _is_done(work: concurrent.futures.Future) -> bool:
  if jax.process_index():
    return False
  return bool(concurrent.futures.wait([work], _TURN).done)


def _tell_all(value: Any) -> Any:
  """Gives what the first process has to all."""
  data = np.frombuffer(pickle.dumps(value), np.uint8)
  length = int(broadcast_one_to_all(np.int32(len(data))))
  if jax.process_index():
    data = np.zeros(length, np.uint8)
  return pickle.loads(np.asarray(broadcast_one_to_all(data)).tobytes())
