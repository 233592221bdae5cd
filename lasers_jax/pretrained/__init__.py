"""Networks with published weights, whose features measure images."""

from lasers_jax.pretrained.perceptual import (
  PERCEPTUAL,
  Perceptual,
  load_perceptual,
)

__all__ = ['PERCEPTUAL', 'Perceptual', 'load_perceptual']
