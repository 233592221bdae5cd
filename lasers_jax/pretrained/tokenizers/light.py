"""Reads VAElight: its two files of ONNX, or their arrays in one file.

Their names are then those of the files, after `encoder.` and `decoder.`.
"""

from collections.abc import Collection, Mapping
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

HALVES = 'encoder', 'preview'  # in the names of the files
_FIRST, _LAST = 'decoder.c2v1.weight', 'decoder.cv10.weight'
_IN, _OUT = ('cv1', 'cv14'), ('c2v4', 'c3v5', 'c4v8', 'to_image')


def is_light(arrays: Arrays) -> bool:
  """Returns whether arrays have these names."""
  return _FIRST in arrays


def is_half(names: Collection[str]) -> bool:
  """Returns whether names are those of a file of ONNX."""
  return 'cv1.weight' in names


def measure(arrays: Arrays) -> dict[str, Any]:
  """Returns the section `network` that the shapes of arrays ask for.

  Raises:
    InputError: an array is missing or of another rank.
  """
  d, channels = shape(arrays, _FIRST, 4)[1], shape(arrays, _LAST, 4)[0]
  return {'name': 'light', 'D': d, 'channels': channels}


def read(arrays: Arrays, network: Mapping[str, Any]) -> Networks:
  """Returns the networks of arrays.

  Args:
    network: of `measure`.

  Raises:
    InputError: an array is missing, has another shape, or no place.
  """
  used = set()

  def take(path, leaf):
    side, module, word = (key.key for key in path)
    module = 'cv11' if module == 'to_image' else module
    name = f'{side}.{module}.{"bias" if word == "bias" else "weight"}'
    used.add(name)
    return _taken(arrays, name, f'{side}.{module}.weight', leaf.shape)

  params = jax.tree_util.tree_map_with_path(take, expected(network))
  for name in _IN:  # theirs sees and gives images in [-1, 1]
    params['encoder'][name]['kernel'] *= 2
  for name in _OUT:
    params['decoder'][name]['kernel'] /= 2
    params['decoder'][name]['bias'] /= 2
  check_all_read(arrays, used)
  return Networks(dict(network), params, None)


def _taken(arrays: Arrays, name: str, weight: str, sides: Any) -> np.ndarray:
  """Returns a kernel or bias; those of 2x2 blocks as of 1x1 convolutions."""
  found = shape(arrays, weight, 4)
  if found[2:] != (2, 2):
    pick = kernel if len(sides) == 4 else named
    return pick(arrays, name, sides)
  doubles = name.startswith('decoder')  # and its kernel is [in, out, 2, 2]
  if name != weight:
    array = named(arrays, name, [found[1] if doubles else found[0]])
    array = np.tile(array, 4 if doubles else 1)
  else:
    axes = (0, 2, 3, 1) if doubles else (2, 3, 1, 0)
    array = named(arrays, name, found).transpose(axes)
    array = array.reshape(
      (1, 1, found[0], -1) if doubles else (1, 1, -1, found[0])
    )
  return named({name: array}, name, sides)
