"""Super-resolution: images made small, and enlarged to their side again."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.core.images import to_uint8, to_uint8_range
from lasers_jax.core.ranges import Range
from lasers_jax.degradations.base import Degradation, Degraded, Measure, whole
from lasers_jax.errors import InputError, unknown
from lasers_jax.metrics import restoration, similarity


def _cubic(image: Array, height: int, width: int) -> Array:
  """Keys' cubic, a = -0.5, widened by the factor where it shrinks."""
  return jax.image.resize(image, (height, width, 3), 'cubic')


def _area(image: Array, height: int, width: int) -> Array:
  """Means of squares."""
  rows, columns = image.shape[0] // height, image.shape[1] // width
  split = image.reshape(height, rows, width, columns, 3)
  return jnp.mean(split, axis=(1, 3))


KERNELS: Mapping[str, Callable[[Array, int, int], Array]] = {
  'cubic': _cubic,
  'area': _area,
}


@dataclasses.dataclass(frozen=True)
class SuperResolution(Degradation):
  """Makes images small, by the kernel of MATLAB's `imresize` but at its border.

  The small image is rounded to 8 bits. The encoder sees it enlarged to the
  side of the image by Keys' cubic, and rounded, as in C. Dong et al., "Image
  super-resolution using deep convolutional networks", TPAMI 2016.

  Attributes:
    scale: the side of an image over that of the small one.
    kernel: 'cubic' with antialiasing, or 'area', means of squares.
  """

  scale: Annotated[int, Range(1, 8)] = 4
  kernel: str = 'cubic'

  def __post_init__(self):
    super().__post_init__()
    if self.kernel not in KERNELS:
      raise unknown('degradation.kernel', self.kernel, KERNELS)

  def __call__(self, image: Array, key: Array) -> Degraded:
    del key
    return whole(self.prepare(self.shrink(image), None))

  def shrink(self, image: Array) -> Array:
    """Returns the small image of [h, w, 3], rounded to 8 bits."""
    h, w, _ = image.shape
    small = KERNELS[self.kernel](image, h // self.scale, w // self.scale)
    return to_uint8_range(small)

  def prepare(self, image: Array, mask: Array | None) -> Array:
    del mask
    h, w, _ = image.shape
    return to_uint8_range(_cubic(image, h * self.scale, w * self.scale))

  def observed(self, image: np.ndarray, degraded: Degraded) -> np.ndarray:
    """Returns the small image: [h / scale, w / scale, 3]."""
    del degraded
    small = self.shrink(jnp.asarray(image, jnp.float32) / 255)
    return to_uint8(small).astype(np.float32) / 255

  def check(self, height: int, width: int) -> None:
    if height % self.scale or width % self.scale:
      raise InputError(
        f'degradation.scale={self.scale} does not divide an image of '
        f'{height}x{width}: crop it, or choose another scale'
      )

  def measures(self) -> Mapping[str, Measure]:
    def cropped(a, b, known, sizes):
      return restoration.psnr_y(a, b, sizes, border=self.scale)

    def consistency(a, b, known, sizes):
      small, again = (jax.vmap(self.shrink)(x) for x in (a, b))
      if sizes is not None:
        sizes = sizes // self.scale
      return similarity.psnr(small, again, sizes)

    return {'psnr_y_cropped': cropped, 'consistency': consistency}
