"""Images from JPEG files of low quality."""

import dataclasses
import io
from collections.abc import Mapping
from typing import Annotated

import jax
import numpy as np
from jax import Array
from PIL import Image

from lasers_jax.core.ranges import Range
from lasers_jax.degradations.base import Degradation, Degraded, Measure, whole
from lasers_jax.degradations.jpeg import jpeg
from lasers_jax.errors import InputError
from lasers_jax.metrics import restoration

# One quality, or the two ends between which it is drawn for each image.
Qualities = Annotated[tuple[Annotated[int, Range(1, 100)], ...], Range(1, 2)]


@dataclasses.dataclass(frozen=True)
class Deblocking(Degradation):
  """Writes images as JPEG: simulated in training, by Pillow in evaluation.

  Attributes:
    quality: of libjpeg's scale; or two, between which that of each image is
      drawn uniformly.
    chroma: '420', at half the side, or '444'.
  """

  quality: Qualities = (10, 40)
  chroma: str = '420'

  def __post_init__(self):
    super().__post_init__()
    if self.chroma not in ('420', '444'):
      raise InputError(
        f"degradation.chroma must be '420' or '444': {self.chroma!r}"
      )

  def __call__(self, image: Array, key: Array) -> Degraded:
    return whole(jpeg(image, self._quality(key), self.chroma))

  def in_evaluation(self, image: np.ndarray, key: Array) -> Degraded:
    file = io.BytesIO()
    sampling = {'420': '4:2:0', '444': '4:4:4'}[self.chroma]
    quality = int(self._quality(key))
    Image.fromarray(image).save(
      file, 'JPEG', quality=quality, subsampling=sampling
    )
    with Image.open(file) as picture:
      return whole(np.asarray(picture, np.float32) / 255)

  def measures(self) -> Mapping[str, Measure]:
    return {
      'psnr_y': lambda a, b, known, sizes: restoration.psnr_y(a, b, sizes)
    }

  def _quality(self, key: Array) -> Array:
    low, high = self.quality[0], self.quality[-1]
    return jax.random.randint(key, (), low, high + 1)
