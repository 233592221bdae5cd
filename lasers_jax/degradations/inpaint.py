"""Inpainting: images with holes."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from lasers_jax.core.ranges import Amount, Fraction
from lasers_jax.degradations.base import Degradation, Degraded, Measure
from lasers_jax.degradations.masks import MASKS
from lasers_jax.errors import unknown
from lasers_jax.metrics import restoration

HOLE = 0.5  # a hole's colour, which is zero to the encoder


@dataclasses.dataclass(frozen=True)
class Inpainting(Degradation):
  """Makes holes of grey; the mask, 1 in the holes, is the fourth channel.

  Attributes:
    mask: a name in `masks.MASKS`.
    share: of the pixels that the mask 'pixels' takes.
    known_weight: of the pixels outside holes in the pixel loss, beside 1 inside
      them; None is 0.1, and 0 where known pixels are pasted.
  """

  extra: ClassVar[int] = 1
  takes_mask: ClassVar[bool] = True

  mask: str = 'strokes'
  share: Fraction = 0.5
  known_weight: Amount | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.mask not in MASKS:
      raise unknown('degradation.mask', self.mask, MASKS)

  @property
  def weighs_pixels(self) -> bool:
    return self.known_weight != 1

  def __call__(self, image: Array, key: Array) -> Degraded:
    holes = MASKS[self.mask](key, *image.shape[:2], self.share)
    holes, outside = holes[..., None], self.known_weight
    if outside is None:
      outside = 0.0 if self.protocol == 'input' else 0.1
    weights = holes + outside * (1 - holes)
    return Degraded(self.prepare(image, holes[..., 0]), weights, 1 - holes)

  def prepare(self, image: Array, mask: Array | None) -> Array:
    assert mask is not None  # `takes_mask`
    holes = mask.astype(image.dtype)[..., None]
    return jnp.concatenate([jnp.where(holes > 0, HOLE, image), holes], axis=-1)

  def measures(self) -> Mapping[str, Measure]:
    return {
      'psnr_hole': restoration.psnr_hole,
      'l1_hole': restoration.l1_hole,
      'hole': lambda a, b, known, sizes: restoration.hole_share(known, sizes),
    }
