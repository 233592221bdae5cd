"""Which pictures a run uses, from the words of its config."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.data.pipeline import TrainPipeline, eval_batches
from lasers_jax.data.sources import Source, open_source
from lasers_jax.ranges import Count, Whole


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
    held_out: of 'photos', the pictures of 'validation' and 'test'.
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

  def open(self, split: str) -> Source:
    """Opens a split; raises InputError where it cannot be used."""
    return open_source(self.name, split, held_out=self.held_out)

  def train_pipeline(self, batch_size: int, seed: int) -> TrainPipeline:
    """Opens the training split as batches, this process's rows of them."""
    return TrainPipeline(
      self.open(self.train),
      batch_size,
      self.side,
      resize=self.resize,
      flip=self.flip,
      seed=seed,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      workers=self.workers,
    )

  def evaluation_batches(
    self, source: Source, batch_size: int, multiple: int
  ) -> Iterator[dict[str, np.ndarray]]:
    """Goes once through an open split; see `eval_batches`."""
    return eval_batches(
      source,
      batch_size,
      None if self.whole else self.side,
      resize=self.resize,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      multiple=multiple,
    )

  def first_images(self, source: Source, count: int) -> list[np.ndarray]:
    """The first pictures uint8 [h, w, 3] of a split as evaluation sees them."""
    size = None if self.whole else self.side
    batches = eval_batches(source, 1, size, resize=self.resize)
    return [batch['image'][0] for batch in itertools.islice(batches, count)]

  def describe(self, split: str) -> dict[str, Any]:
    """What results say of their data."""
    return {
      'data': self.name,
      'split': split,
      'resize': self.resize and f'shorter side {self.resize}, bicubic',
      'crop': None if self.whole else f'centre {self.side}x{self.side}',
    }
