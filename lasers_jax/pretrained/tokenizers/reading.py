"""Finds out what a file or folder of a tokenizer holds, and reads it."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.core import storage
from lasers_jax.errors import InputError
from lasers_jax.pretrained.tokenizers import diffusers, light, resnet, tiny
from lasers_jax.pretrained.tokenizers.arrays import Arrays, Networks
from lasers_jax.pretrained.tokenizers.tokenizer import Tokenizer
from lasers_jax.pretrained.weights import read_weights

WEIGHTS = 'diffusion_pytorch_model'
_FILES = (f'{WEIGHTS}.safetensors', f'{WEIGHTS}.fp16.safetensors')
_FILES += (f'{WEIGHTS}.bin',)
_HALVES = 'encoder', 'decoder'
_PREFIXES = ('', 'first_stage_model.', 'vae.')
# Where the authors of FLUX.2 have what others have outside both networks.
_INSIDE = 'encoder.quant_conv.', 'decoder.post_quant_conv.'
_LONGEST_CONFIG = 2**20


def read_tokenizer(path: str | os.PathLike) -> Tokenizer:
  """Reads a tokenizer of another project.

  Args:
    path: a folder of diffusers, with config.json, or a file of weights. Where
      encoder and decoder have a file each, as X_encoder.pth and X_decoder.pth,
      either is the path of both.

  Returns:
    Its networks as those of this project. What the shapes of the arrays say is
    taken from them, and a config is compared with them.

  Raises:
    InputError: there is no such tokenizer, its files are damaged or contradict
      each other, or it is of a kind that cannot be read.
  """
  path = storage.absolute(os.fspath(path))
  if not storage.exists(path):
    raise InputError(
      f'there is no tokenizer at {path}: neither a file nor a folder'
    )
  try:
    return _read(path)
  except InputError as error:
    said = str(error)
    raise InputError(said if path in said else f'{path}: {said}') from error


def _read(path: str) -> Tokenizer:
  files, config, arrays = _files(path)
  arrays = _within_prefix(arrays)
  found = _networks(arrays, config)
  d, bottleneck = found.network['D'], {'name': 'none'}
  scale, shift = np.ones(d, np.float32), np.zeros(d, np.float32)
  patches = diffusers.patches(config, arrays, d)
  if found.codebook is not None:
    bottleneck = {'name': 'vq', 'K': len(found.codebook)}
  elif patches is not None:
    scale, shift = diffusers.pooled(patches)
  elif config:
    scale, shift = diffusers.latent_scale(config, d)
  _check_finite({**found.params, 'codebook': found.codebook})
  return Tokenizer(
    network=found.network,
    params=found.params,
    bottleneck=bottleneck,
    codebook=found.codebook,
    scale=scale,
    shift=shift,
    source=files[0] if not config else path,
    hash=_hash(files),
    patches=patches,
  )


def _files(path: str) -> tuple[list[str], dict[str, Any], Arrays]:
  """Reads the files of a tokenizer: their paths, the config, and the arrays."""
  if not storage.is_folder(path):
    arrays = read_weights(path, _of_tokenizer)
    if _is_half(arrays):
      return _pair(path, arrays)
    return [path], {}, arrays
  config_file = os.path.join(path, diffusers.CONFIG)
  files = [os.path.join(path, name) for name in _FILES]
  found = [file for file in files if storage.exists(file)]
  if not found or not storage.exists(config_file):
    raise InputError(
      f'{path} is no folder of diffusers: it must hold {diffusers.CONFIG} and '
      f'{_FILES[0]}'
    )
  config = _config(config_file)
  return [config_file, found[0]], config, read_weights(found[0], _of_tokenizer)


def _pair(
  path: str, arrays: Arrays
) -> tuple[list[str], dict[str, Any], Arrays]:
  """Reads the other one of the files of an encoder and a decoder."""
  folder, name = os.path.split(path)
  first, second = light.HALVES if light.is_half(arrays) else _HALVES
  here, there = (first, second) if first in name else (second, first)
  before, found, after = name.rpartition(here)
  other = os.path.join(folder, before + there + after)
  if not found or not storage.exists(other):
    raise InputError(
      f'{path} is half of a tokenizer, and the other is not beside it: name '
      f'them X_{first}* and X_{second}*'
    )
  files = {here: path, there: other}
  halves = {here: arrays, there: read_weights(other)}
  both = {
    f'{side}.{name}': array
    for side, word in zip(_HALVES, (first, second), strict=True)
    for name, array in halves[word].items()
  }
  return [files[first], files[second]], {}, both


def _networks(arrays: Arrays, config: Mapping[str, Any]) -> Networks:
  """Returns the networks of arrays, which a config does not contradict."""
  if light.is_light(arrays):
    return light.read(arrays, light.measure(arrays))
  if tiny.is_tiny(arrays):
    network = tiny.measure(arrays)
    diffusers.check(config, tiny.said_by(network))
    return tiny.read(arrays, network)
  network = resnet.measure(arrays, diffusers.groups(config))
  diffusers.check(config, diffusers.said_by_resnet(arrays, network))
  return resnet.read(arrays, network)


def _config(file: str) -> dict[str, Any]:
  """Reads the config of a folder of diffusers."""
  with storage.opened(file) as stream:
    data = stream.read(_LONGEST_CONFIG + 1)
  try:
    config = json.loads(data[:_LONGEST_CONFIG])
  except (ValueError, RecursionError) as error:
    raise InputError(f'{file} is damaged: {storage.one_line(error)}') from error
  kind = config.get('_class_name') if isinstance(config, dict) else None
  if kind not in diffusers.CLASSES:
    raise InputError(
      f'{file} is of the class {kind!r}: what can be read is '
      f'{", ".join(diffusers.CLASSES)}'
    )
  return config


def _is_half(names: Collection[str]) -> bool:
  """Returns whether names are of an encoder or a decoder alone."""
  return all(name[:1].isdigit() for name in names) or light.is_half(names)


def _of_tokenizer(names: Collection[str]) -> list[str]:
  """Returns the names of the tokenizer, or of half of one, in a model."""
  prefix = '' if _is_half(names) else _prefix(names)
  return [name for name in names if name.startswith(prefix)]


def _within_prefix(arrays: Arrays) -> Arrays:
  """Returns the arrays of a tokenizer by their names within it."""
  prefix = _prefix(arrays)
  return {
    _outside(name.removeprefix(prefix)): array for name, array in arrays.items()
  }


def _prefix(names: Collection[str]) -> str:
  """Returns how the names of the tokenizer in a model begin.

  Raises:
    InputError: there is none.
  """
  for prefix in _PREFIXES:
    ends = f'{prefix}encoder.', f'{prefix}decoder.'
    if any(name.startswith(ends) for name in names):
      return prefix
  raise InputError('there are no arrays encoder.* or decoder.* in the weights')


def _outside(name: str) -> str:
  return name.partition('.')[2] if name.startswith(_INSIDE) else name


def _check_finite(params: Any) -> None:
  for place, array in jax.tree_util.tree_leaves_with_path(params):
    if not np.isfinite(array).all():
      raise InputError(
        f'the parameters {jax.tree_util.keystr(place)} are not finite'
      )


def _hash(files: list[str]) -> str:
  """Returns a hash of the contents of files, in hexadecimal digits."""
  digest = hashlib.sha256()
  for file in files:
    with storage.opened(file) as stream:
      digest.update(hashlib.file_digest(stream, 'sha256').digest())
  return digest.hexdigest()
