"""Finds out what a file or folder of a tokenizer holds, and reads it."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.core import storage
from lasers_jax.errors import InputError
from lasers_jax.pretrained.tokenizers import diffusers, resnet
from lasers_jax.pretrained.tokenizers.arrays import Arrays
from lasers_jax.pretrained.tokenizers.tokenizer import Tokenizer
from lasers_jax.pretrained.weights import read_weights

WEIGHTS = 'diffusion_pytorch_model'
_FILES = (f'{WEIGHTS}.safetensors', f'{WEIGHTS}.fp16.safetensors')
_FILES += (f'{WEIGHTS}.bin',)
_PREFIXES = ('', 'first_stage_model.', 'vae.')
# Where the authors of FLUX.2 have what others have outside both networks.
_INSIDE = 'encoder.quant_conv.', 'decoder.post_quant_conv.'
_LONGEST_CONFIG = 2**20


def read_tokenizer(path: str | os.PathLike) -> Tokenizer:
  """Reads a tokenizer of another project.

  Args:
    path: a folder of diffusers, with config.json, or a file of weights.

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
  if not storage.is_folder(path):
    return _read([path], {}, path)
  config_file = os.path.join(path, diffusers.CONFIG)
  files = [os.path.join(path, name) for name in _FILES]
  found = [file for file in files if storage.exists(file)]
  if not found or not storage.exists(config_file):
    raise InputError(
      f'{path} is no folder of diffusers: it must hold {diffusers.CONFIG} and '
      f'{_FILES[0]}'
    )
  return _read([config_file, found[0]], _config(config_file), path)


def _read(files: list[str], config: Mapping[str, Any], path: str) -> Tokenizer:
  """Reads a tokenizer of one file of weights, the last."""
  try:
    arrays = _within_prefix(read_weights(files[-1]))
    groups = diffusers.groups(config)
    network = resnet.measure(arrays, groups)
    diffusers.check(config, arrays, network)
    found = resnet.read(arrays, network)
    d, scale, shift = (
      network['D'],
      np.ones(network['D']),
      np.zeros(network['D']),
    )
    patches = diffusers.patches(config, arrays, d)
    if patches is not None:
      scale, shift = diffusers.pooled(patches)
    elif config and found.codebook is None:
      scale, shift = diffusers.latent_scale(config, d)
  except InputError as error:
    said = str(error)
    raise InputError(said if path in said else f'{path}: {said}') from error
  _check_finite(found.params, path)
  bottleneck = {'name': 'none'}
  if found.codebook is not None:
    bottleneck = {'name': 'vq', 'K': len(found.codebook)}
  return Tokenizer(
    network=found.network,
    params=found.params,
    bottleneck=bottleneck,
    codebook=found.codebook,
    scale=scale.astype(np.float32),
    shift=shift.astype(np.float32),
    source=path,
    hash=_hash(files),
    patches=patches,
  )


def _config(file: str) -> dict[str, Any]:
  """Reads the config of a folder of diffusers."""
  with storage.opened(file) as stream:
    data = stream.read(_LONGEST_CONFIG + 1)
  try:
    config = json.loads(data[:_LONGEST_CONFIG])
  except (ValueError, RecursionError) as error:
    raise InputError(f'{file} is damaged: {storage.one_line(error)}') from error
  kind = config.get('_class_name') if isinstance(config, dict) else None
  if kind not in diffusers.RESNETS:
    raise InputError(
      f'{file} is of the class {kind!r}: what can be read is '
      f'{", ".join(diffusers.RESNETS)}'
    )
  return config


def _within_prefix(arrays: Arrays) -> Arrays:
  """Returns the arrays of the tokenizer in those of a larger model."""
  for prefix in _PREFIXES:
    ends = f'{prefix}encoder.', f'{prefix}decoder.'
    if any(name.startswith(ends) for name in arrays):
      return {
        _outside(name.removeprefix(prefix)): array
        for name, array in arrays.items()
        if name.startswith(prefix)
      }
  raise InputError('there are no arrays encoder.* or decoder.* in the weights')


def _outside(name: str) -> str:
  return name.partition('.')[2] if name.startswith(_INSIDE) else name


def _check_finite(params: Any, path: str) -> None:
  for place, array in jax.tree_util.tree_leaves_with_path(params):
    if not np.isfinite(array).all():
      raise InputError(
        f'{path}: the parameters {jax.tree_util.keystr(place)} are not finite'
      )


def _hash(files: list[str]) -> str:
  """Returns a hash of the contents of files, in hexadecimal digits."""
  digest = hashlib.sha256()
  for file in files:
    with storage.opened(file) as stream:
      digest.update(hashlib.file_digest(stream, 'sha256').digest())
  return digest.hexdigest()
