"""Degradations: what is done to images before a model restores them.

`DEGRADATIONS` maps the `name` of a config's section `degradation` to a class
with its settings.
"""

from collections.abc import Mapping

from lasers_jax.degradations.base import (
  PROTOCOLS,
  Degradation,
  Degraded,
  degrade,
  in_evaluation,
  prepared,
  row_keys,
)
from lasers_jax.degradations.colorize import Colorization
from lasers_jax.degradations.deblock import Deblocking
from lasers_jax.degradations.denoise import Denoising
from lasers_jax.degradations.inpaint import Inpainting
from lasers_jax.degradations.mixed import Mixed
from lasers_jax.degradations.superres import SuperResolution

DEGRADATIONS: Mapping[str, type[Degradation]] = {
  'superres': SuperResolution,
  'inpaint': Inpainting,
  'denoise': Denoising,
  'deblock': Deblocking,
  'colorize': Colorization,
  'mixed': Mixed,
}

__all__ = [
  'DEGRADATIONS',
  'PROTOCOLS',
  'Degradation',
  'Degraded',
  'degrade',
  'in_evaluation',
  'prepared',
  'row_keys',
]
