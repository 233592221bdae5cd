"""Reads TAESD and its kin, from their own files or from those of diffusers.

Both number the layers; diffusers has no layer for the bound of the latent, and
its decoder begins with 0 instead of 1.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.pretrained.tokenizers.arrays import (
  Arrays,
  Networks,
  check_all_read,
  expected,
  shape,
)
from lasers_jax.pretrained.weights import kernel, named

_NUMBERED = re.compile(r'(encoder|decoder)\.(layers\.)?\d+\.')
# The layers of a module, in its order, as the first files number them.
_BLOCKS = {
  'encoder': (1, 3, 4, 5, 7, 8, 9, 11, 12, 13),
  'decoder': (3, 4, 5, 8, 9, 10, 13, 14, 15, 18),
}
_CHANGES = {'encoder': (2, 6, 10), 'decoder': (7, 12, 17)}
_ENDS = {'encoder': (0, 14), 'decoder': (1, 19)}
_POOLED = 11  # a block of the encoder
_IN_BLOCK = {
  'Conv_0': 'conv.0',
  'Conv_1': 'conv.2',
  'Conv_2': 'conv.4',
  'pool_in': 'pool.0',
  'GroupNorm_0': 'pool.1',
  'pool_out': 'pool.3',
}


def is_tiny(arrays: Arrays) -> bool:
  """Returns whether the names of arrays are numbers of layers."""
  return any(_NUMBERED.match(name) for name in arrays)


def measure(arrays: Arrays) -> dict[str, Any]:
  """Returns the section `network` that the shapes of arrays ask for.

  Raises:
    InputError: an array is missing or of another rank.
  """
  first, last = (
    shape(arrays, f'{_layer(arrays, "encoder", i)}.weight', 4)
    for i in _ENDS['encoder']
  )
  pool = f'{_layer(arrays, "encoder", _POOLED)}.pool.0.weight'
  return {
    'name': 'tiny',
    'D': last[0],
    'channels': first[0],
    'pool': shape(arrays, pool, 4)[0] if pool in arrays else 0,
  }


def said_by(network: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a config of diffusers says of a network of `measure`."""
  widths = [network['channels']] * 4
  return {
    '_class_name': 'AutoencoderTiny',
    'in_channels': 3,
    'out_channels': 3,
    'latent_channels': network['D'],
    'encoder_block_out_channels': widths,
    'decoder_block_out_channels': widths,
    'num_encoder_blocks': [1, 3, 3, 3],
    'num_decoder_blocks': [3, 3, 3, 1],
    'act_fn': 'relu',
    'upsampling_scaling_factor': 2,
  }


def read(arrays: Arrays, network: Mapping[str, Any]) -> Networks:
  """Returns the networks of arrays.

  Args:
    network: of `measure`.

  Raises:
    InputError: an array is missing, has another shape, or no place.
  """
  used = set()

  def fill(side, shapes):
    def take(path, leaf):
      *modules, word = (key.key for key in path)
      name = _name(arrays, side, modules)
      word = 'bias' if word == 'bias' else 'weight'
      return _taken(arrays, f'{name}.{word}', modules[0], leaf, used)

    return jax.tree_util.tree_map_with_path(take, shapes)

  params = {side: fill(side, x) for side, x in expected(network).items()}
  # Theirs gives images in [0, 1], and ours adds 0.5.
  params['decoder']['to_image']['bias'] -= 0.5
  check_all_read(arrays, used)
  return Networks(dict(network), params, None)


def _taken(
  arrays: Arrays, name: str, module: str, leaf: Any, used: set[str]
) -> np.ndarray:
  """Returns an array of a leaf of a module; of none where theirs has none."""
  changes_side = module.startswith(('DownConv', 'NearestUpConv'))
  if changes_side and name.endswith('.bias'):
    return np.zeros(leaf.shape, np.float32)
  used.add(name)
  if len(leaf.shape) != 4:
    return named(arrays, name, leaf.shape)
  if not module.startswith('DownConv'):
    return kernel(arrays, name, leaf.shape)
  # A 3x3 kernel with padding 1 is a 4x4 one that ends with zeros.
  array = kernel(arrays, name, (3, 3, *leaf.shape[2:]))
  return np.pad(array, ((0, 1), (0, 1), (0, 0), (0, 0)))


def _name(arrays: Arrays, side: str, modules: list[str]) -> str:
  """The name of a module of ours."""
  outer, *inner = modules
  kind, _, number = outer.rpartition('_')
  if kind == 'TinyBlock':
    layer = _layer(arrays, side, _BLOCKS[side][int(number)])
    return f'{layer}.{_IN_BLOCK[inner[0]]}'
  if kind in ('DownConv', 'NearestUpConv'):
    return _layer(arrays, side, _CHANGES[side][int(number)])
  return _layer(arrays, side, _ENDS[side][outer != 'Conv_0'])


def _layer(arrays: Arrays, side: str, number: int) -> str:
  """The name of a layer, as the files of these arrays number it."""
  if any(name.startswith(f'{side}.layers.') for name in arrays):
    return f'{side}.layers.{number - (side == "decoder")}'
  return f'{side}.{number}'
