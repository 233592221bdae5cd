"""Opens images (sources) and prepares them for training and evaluation."""

from lasers_jax.data.given import as_source
from lasers_jax.data.opening import open_source, register_source
from lasers_jax.data.pipeline import (
  Remembered,
  TrainPipeline,
  center_crop,
  eval_batches,
  random_crop,
)
from lasers_jax.data.resizing import resize_shorter
from lasers_jax.data.settings import DataSettings
from lasers_jax.data.sources import SOURCES, OpenSource, Source

__all__ = [
  'SOURCES',
  'DataSettings',
  'OpenSource',
  'Remembered',
  'Source',
  'TrainPipeline',
  'as_source',
  'center_crop',
  'eval_batches',
  'open_source',
  'random_crop',
  'register_source',
  'resize_shorter',
]
