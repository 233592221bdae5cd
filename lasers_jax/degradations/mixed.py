"""Several degradations for one model."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.core.ranges import Range
from lasers_jax.degradations.base import Degradation, Degraded
from lasers_jax.degradations.deblock import Deblocking, Qualities
from lasers_jax.degradations.denoise import Denoising, Levels
from lasers_jax.degradations.superres import SuperResolution


@dataclasses.dataclass(frozen=True)
class Mixed(Degradation):
  """Noise, JPEG or a small image: one of them for each image, equally likely.

  As the network DnCNN-3 of K. Zhang et al., "Beyond a Gaussian denoiser", TIP
  2017, is trained.

  Attributes:
    sigma: see `Denoising`.
    quality: see `Deblocking`.
    scales: see `SuperResolution`; each is as likely as noise.
  """

  sigma: Levels = (0.0, 55.0)
  quality: Qualities = (5, 99)
  scales: Annotated[tuple[Annotated[int, Range(1, 8)], ...], Range(1)] = (2, 4)

  @property
  def parts(self) -> list[Degradation]:
    """Returns the degradations that images meet."""
    return [
      Denoising(sigma=self.sigma),
      Deblocking(quality=self.quality),
      *(SuperResolution(scale=scale) for scale in self.scales),
    ]

  def __call__(self, image: Array, key: Array) -> Degraded:
    which, key = self._draw(key)
    made = [part(image, key) for part in self.parts]
    return jax.tree.map(lambda *x: jnp.stack(x)[which], *made)

  def in_evaluation(self, image: np.ndarray, key: Array) -> Degraded:
    which, key = self._draw(key)
    return self.parts[int(which)].in_evaluation(image, key)

  def check(self, height: int, width: int) -> None:
    for part in self.parts:
      part.check(height, width)

  def _draw(self, key: Array) -> tuple[Array, Array]:
    kind_key, key = jax.random.split(key)
    return jax.random.randint(kind_key, (), 0, len(self.parts)), key
