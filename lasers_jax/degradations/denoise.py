"""White Gaussian noise."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.core.images import to_uint8_range
from lasers_jax.core.ranges import Amount, Range
from lasers_jax.degradations.base import Degradation, Degraded, whole

# One value, or the two ends between which it is drawn for each image.
Levels = Annotated[tuple[Amount, ...], Range(1, 2)]


@dataclasses.dataclass(frozen=True)
class Denoising(Degradation):
  """Adds white Gaussian noise, which is not clipped, as papers do.

  Attributes:
    sigma: its standard deviation, of 255; or two, between which that of each
      image is drawn uniformly.
    rounded: whether to clip and round to 8 bits, as in a file.
  """

  sigma: Levels = (25.0,)
  rounded: bool = False

  def __call__(self, image: Array, key: Array) -> Degraded:
    level_key, noise_key = jax.random.split(key)
    sigma = jax.random.uniform(
      level_key, (), jnp.float32, self.sigma[0], self.sigma[-1]
    )
    noise = jax.random.normal(noise_key, image.shape, jnp.float32)
    noisy = image + sigma / 255 * noise
    return whole(to_uint8_range(noisy) if self.rounded else noisy)
