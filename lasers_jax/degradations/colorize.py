"""Grey images, whose colours are to be found."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from lasers_jax.core.images import to_uint8_range
from lasers_jax.degradations.base import Degradation, Degraded, Measure, whole
from lasers_jax.metrics import restoration

_LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601


@dataclasses.dataclass(frozen=True)
class Colorization(Degradation):
  """Leaves the luma of BT.601 alone, in three channels, rounded to 8 bits."""

  def __call__(self, image: Array, key: Array) -> Degraded:
    del key
    return whole(self.prepare(image, None))

  def prepare(self, image: Array, mask: Array | None) -> Array:
    del mask
    grey = sum(w * image[..., i] for i, w in enumerate(_LUMA))
    return jnp.broadcast_to(to_uint8_range(grey)[..., None], image.shape)

  def measures(self) -> Mapping[str, Measure]:
    return {
      'chroma_error': lambda a, b, known, sizes: restoration.chroma_error(
        a, b, sizes
      ),
      'colourfulness': lambda a, b, known, sizes: restoration.colourfulness(
        b, sizes
      ),
    }
