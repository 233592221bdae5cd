"""Reads the residual networks of VQGAN, latent diffusion and diffusers.

Esser et al., arXiv 2012.09841; Rombach et al., arXiv 2112.10752. All that the
shapes of the arrays tell is taken from them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.errors import InputError
from lasers_jax.pretrained.tokenizers import names
from lasers_jax.pretrained.tokenizers.arrays import (
  Arrays,
  Networks,
  check_all_read,
  expected,
  shape,
)
from lasers_jax.pretrained.weights import kernel, named

GROUPS = 32  # of all published ones
CODEBOOK = 'quantize.embedding.weight'
_QUANT, _POST, _OUT = 'quant_conv', 'post_quant_conv', 'encoder.conv_out'
_MOST_LEVELS = 8
# Discriminators, averages of weights and statistics: no part of the networks.
_LEFT_OUT = ('loss.', 'model_ema.', 'bn.', 'quantize.embedding.cluster_size')
_LEFT_OUT += ('quantize.embedding.embed_avg',)


def measure(arrays: Arrays, groups: int = GROUPS) -> dict[str, Any]:
  """Returns the section `network` that the shapes of arrays ask for.

  Raises:
    InputError: an array is missing, or shapes contradict.
  """
  _check_kind(arrays)
  family = _family(arrays)
  widths = _widths(arrays, family)
  channels = shape(arrays, 'encoder.conv_in.weight', 4)[0]
  multipliers = [_multiple(width, channels) for width in widths]
  outer = shape(arrays, f'decoder.{family.norm_out}.weight', 1)[0]
  decoder_channels = _multiple(outer, multipliers[0])
  decoder_widths = [decoder_channels * m for m in multipliers]
  for width in (channels, *widths, *decoder_widths):
    if width % groups:
      raise InputError(
        f'{groups} groups of a normalisation do not divide {width} channels: '
        'norm_num_groups of config.json is missing or of another network'
      )
  attention = f'encoder.{family.encoder_level}.{family.attention}.'
  middle = f'encoder.{family.middle[0]}.{family.middle[2]}.'
  return {
    'name': 'resnet',
    'D': len(_to_latent(arrays)['weight']),
    'channels': channels,
    'multipliers': tuple(multipliers),
    'blocks': _count(arrays, f'{_first(family)}.conv1.weight', 0),
    'attention': tuple(
      2**i for i in range(len(widths)) if _any(arrays, attention.format(i, 0))
    ),
    'groups': groups,
    'downsample': 'conv3',
    'middle_attention': _any(arrays, middle),
    'from_latent': _from_latent(arrays),
    'decoder_channels': decoder_channels
    if decoder_channels != channels
    else None,
  }


def read(arrays: Arrays, network: Mapping[str, Any]) -> Networks:
  """Returns the networks of arrays.

  Args:
    network: of `measure`.

  Raises:
    InputError: an array is missing, has another shape, or no place.
  """
  used = {f'{_QUANT}.weight', f'{_QUANT}.bias', CODEBOOK}
  if not network['from_latent']:
    used |= {f'{_POST}.weight', f'{_POST}.bias'}
  family = _family(arrays)
  kernels = {name: _as_kernel(name, array) for name, array in arrays.items()}
  for leaf, array in _to_latent(arrays).items():
    kernels[f'{_OUT}.{leaf}'] = array
  params = {}
  for side, shapes in expected(network).items():
    params[side] = _fill(shapes, kernels, family, side, used)
  _scale_images(params)
  check_all_read(arrays, used, _LEFT_OUT)
  return Networks(dict(network), params, _codebook(arrays, network['D']))


def _check_kind(arrays: Arrays) -> None:
  """Raises InputError for codes that a codebook of nearest vectors is not."""
  if 'quantize.embed.weight' in arrays or 'quantize.proj.weight' in arrays:
    raise InputError(
      'the model draws its codes by Gumbel-softmax (quantize.embed), and such '
      'models cannot be read'
    )
  if 'quantize.used' in arrays:
    raise InputError(
      'the model numbers its codes anew by a remap file (quantize.used), and '
      'such models cannot be read'
    )


def _fill(
  shapes: Any, kernels: Arrays, family: names.Family, side: str, used: set[str]
) -> Any:
  """Returns a tree of arrays for one of shapes, and notes the names used."""
  levels = sum(name.startswith('Level') for name in shapes)

  def take(path, leaf):
    *modules, word = (key.key for key in path)
    found = names.names_of(family, side, levels, tuple(modules))
    word = 'bias' if word == 'bias' else 'weight'
    pick = kernel if len(leaf.shape) == 4 else named
    each = (*leaf.shape[:-1], leaf.shape[-1] // len(found))
    every = [f'{name}.{word}' for name in found]
    used.update(every)
    return np.concatenate([pick(kernels, x, each) for x in every], axis=-1)

  return jax.tree_util.tree_map_with_path(take, shapes)


def _scale_images(params: dict[str, Any]) -> None:
  """Makes networks of images in [-1, 1] those of images in [-0.5, 0.5]."""
  first, last = params['encoder']['Conv_0'], params['decoder']['to_image']
  first['kernel'] *= 2
  last['kernel'] /= 2
  last['bias'] /= 2


def _to_latent(arrays: Arrays) -> dict[str, np.ndarray]:
  """The last layer of the encoder to the latent, or the latent's mean.

  A 1x1 convolution after it is multiplied in.
  """
  z, *_ = shape(arrays, f'{_OUT}.weight', 4)
  weight = arrays[f'{_OUT}.weight'].astype(np.float64)
  bias = named(arrays, f'{_OUT}.bias', [z]).astype(np.float64)
  if f'{_QUANT}.weight' in arrays:
    outs = shape(arrays, f'{_QUANT}.weight', 4)[0]
    matrix = named(arrays, f'{_QUANT}.weight', [outs, z, 1, 1])[:, :, 0, 0]
    weight = np.einsum('oz,zihw->oihw', matrix.astype(np.float64), weight)
    bias = matrix @ bias + named(arrays, f'{_QUANT}.bias', [outs])
  if CODEBOOK not in arrays:  # mean and log variance
    if len(weight) % 2:
      raise InputError(
        f'{_OUT} gives {len(weight)} channels, an odd number: no mean and '
        'variance, and there is no codebook'
      )
    weight, bias = weight[: len(weight) // 2], bias[: len(bias) // 2]
  return {'weight': weight, 'bias': bias}


def _from_latent(arrays: Arrays) -> int:
  """The width of a 1x1 convolution before the decoder; 0 of an identity."""
  if f'{_POST}.weight' not in arrays:
    return 0
  width = shape(arrays, 'decoder.conv_in.weight', 4)[1]
  matrix, bias = arrays[f'{_POST}.weight'], arrays.get(f'{_POST}.bias')
  identity = np.eye(width)[..., None, None]
  if np.array_equal(matrix, identity) and np.array_equal(bias, np.zeros(width)):
    return 0
  return width


def _codebook(arrays: Arrays, d: int) -> np.ndarray | None:
  if CODEBOOK not in arrays:
    return None
  return named(arrays, CODEBOOK, [shape(arrays, CODEBOOK, 2)[0], d])


def _family(arrays: Arrays) -> names.Family:
  if _any(arrays, 'encoder.down.') or _any(arrays, 'decoder.up.'):
    return names.TAMING
  if any(name.endswith('.query.weight') for name in arrays):
    return names.OLD_DIFFUSERS
  return names.DIFFUSERS


def _first(family: names.Family) -> str:
  return f'encoder.{family.encoder_level}.{family.block}'


def _widths(arrays: Arrays, family: names.Family) -> list[int]:
  """The width of each level of the encoder."""
  first = f'{_first(family)}.conv1.weight'
  widths = [shape(arrays, first.format(0, 0), 4)[0]]
  while (name := first.format(len(widths), 0)) in arrays:
    widths.append(shape(arrays, name, 4)[0])
    if len(widths) > _MOST_LEVELS:
      raise InputError(f'the array {name} is of a level too many')
  return widths


def _count(arrays: Arrays, pattern: str, level: int) -> int:
  """How many blocks a level has."""
  count = 0
  while pattern.format(level, count) in arrays:
    count += 1
  return count


def _multiple(width: int, channels: int) -> int:
  if channels < 1 or width < 1 or width % channels:
    raise InputError(
      f'a level has {width} channels, no multiple of {channels}: such networks '
      'cannot be built'
    )
  return width // channels


def _any(arrays: Arrays, prefix: str) -> bool:
  return any(name.startswith(prefix) for name in arrays)


def _as_kernel(name: str, array: np.ndarray) -> np.ndarray:
  """A projection [C, C] or [C, C, 1], of attention, as a 1x1 convolution."""
  if array.ndim in (2, 3) and name != CODEBOOK:
    return array.reshape(array.shape + (1,) * (4 - array.ndim))
  return array
