"""Names and lays out residual networks as diffusers holds them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lasers_jax.errors import InputError
from lasers_jax.pretrained.tokenizers import diffusers, names
from lasers_jax.pretrained.tokenizers.arrays import Arrays
from lasers_jax.pretrained.tokenizers.resnet import CODEBOOK

# The logarithm of a variance where there is none: diffusers clips it here.
NO_VARIANCE = -30.0


def as_diffusers(
  network: Mapping[str, Any],
  params: Mapping[str, Any],
  codebook: np.ndarray | None = None,
  log_variance: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Returns the arrays and the config of AutoencoderKL or VQModel.

  Args:
    network: the section `network` of a config, with its defaults.
    params: {'encoder': ..., 'decoder': ...}.
    codebook: [K, D], which makes it a VQModel.
    log_variance: kernel and bias beside those of `to_latent`; None: the
      variance is about zero.

  Raises:
    InputError: the classes have no such networks.
  """
  check(network, codebook is not None)
  arrays = _arrays(network, _in_their_range(params))
  if codebook is None:
    arrays |= _with_variance(arrays, log_variance)
  else:
    arrays |= _with_codebook(arrays, codebook)
  config = {
    **diffusers.said_by_resnet(arrays, network),
    'out_channels': 3,
    'norm_num_groups': network['groups'],
  }
  config.pop('decoder_block_out_channels')
  return arrays, config


def check(network: Mapping[str, Any], is_vq: bool) -> None:
  """Raises InputError where the classes of diffusers have no such network."""
  if network['name'] != 'resnet':
    raise _cannot(f"network.name='resnet', not {network['name']!r}")
  d, inner = network['D'], network['from_latent']
  widths = [network['channels'] * m for m in network['multipliers']]
  needed = {
    "network.downsample='conv3'": network['downsample'] == 'conv3',
    'network.multipliers that begin with 1': network['multipliers'][0] == 1,
    'no network.decoder_channels': network['decoder_channels'] is None,
    f'channels that {network["groups"]} groups divide (network.groups)': all(
      width % network['groups'] == 0 for width in widths
    ),
    'network.from_latent of 0 or D, or above with a codebook': inner in (0, d)
    or (is_vq and inner > d),
  }
  for words, is_met in needed.items():
    if not is_met:
      raise _cannot(words)


def _cannot(words: str) -> InputError:
  return InputError(f"format='diffusers' requires {words}")


def _in_their_range(params: Mapping[str, Any]) -> dict[str, Any]:
  """Networks of images in [-1, 1], of those of images in [-0.5, 0.5]."""
  encoder, decoder = params['encoder'], params['decoder']
  first, last = encoder['Conv_0'], decoder['to_image']
  last = {name: 2 * array for name, array in last.items()}
  return {
    'encoder': {**encoder, 'Conv_0': {**first, 'kernel': first['kernel'] / 2}},
    'decoder': {**decoder, 'to_image': last},
  }


def _arrays(
  network: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns the leaves of parameters by the names of diffusers."""
  found, levels = {}, len(network['multipliers'])
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    side, *modules, word = (key.key for key in path)
    named = names.names_of(names.DIFFUSERS, side, levels, tuple(modules))
    ending = 'bias' if word == 'bias' else 'weight'
    parts = np.split(np.asarray(leaf), len(named), axis=-1)
    for name, part in zip(named, parts, strict=True):
      found[f'{name}.{ending}'] = _turned(part, is_linear='.to_' in name)
  return found


def _turned(array: np.ndarray, is_linear: bool) -> np.ndarray:
  if array.ndim == 4:
    array = array.transpose(3, 2, 0, 1)
    array = array[:, :, 0, 0] if is_linear else array
  return np.array(array, np.float32, order='C')


def _with_variance(
  arrays: Arrays, log_variance: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
  """Returns the last layer of the encoder, of mean and log variance."""
  mean = {x: arrays[f'encoder.conv_out.{x}'] for x in ('weight', 'bias')}
  more = {
    'weight': np.zeros_like(mean['weight']),
    'bias': np.full_like(mean['bias'], NO_VARIANCE),
  }
  if log_variance is not None:
    more = {
      'weight': _turned(log_variance['kernel'], False),
      'bias': np.asarray(log_variance['bias']),
    }
  return {
    f'encoder.conv_out.{x}': np.concatenate([mean[x], more[x]]) for x in mean
  }


def _with_codebook(arrays: Arrays, codebook: np.ndarray) -> dict[str, Any]:
  """Returns the codebook, and the 1x1 convolutions that VQModel has around it.

  The second begins where that of a network is; the first selects.
  """
  d = codebook.shape[1]
  width = arrays['decoder.conv_in.weight'].shape[1]
  more = width - d
  found = {
    CODEBOOK: np.asarray(codebook, np.float32),
    'quant_conv.weight': np.eye(d, width, dtype=np.float32)[..., None, None],
    'quant_conv.bias': np.zeros(d, np.float32),
  }
  for x in 'weight', 'bias':
    array = arrays[f'encoder.conv_out.{x}']
    pads = [(0, more)] + [(0, 0)] * (array.ndim - 1)
    found[f'encoder.conv_out.{x}'] = np.pad(array, pads)
  if 'post_quant_conv.weight' not in arrays:
    found['post_quant_conv.weight'] = found['quant_conv.weight']
    found['post_quant_conv.bias'] = found['quant_conv.bias']
  return found
