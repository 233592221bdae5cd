"""Reads the configs of diffusers, and compares them with arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lasers_jax.errors import InputError, shown
from lasers_jax.pretrained.tokenizers.arrays import Arrays
from lasers_jax.pretrained.tokenizers.resnet import CODEBOOK, GROUPS
from lasers_jax.pretrained.tokenizers.tokenizer import Patches
from lasers_jax.pretrained.weights import named

CONFIG = 'config.json'
CLASSES = 'AutoencoderKL', 'AutoencoderKLFlux2', 'AutoencoderTiny', 'VQModel'
# Of a config without a scale: AutoencoderKL's default is that of SD.
_SCALES = {'AutoencoderKL': 0.18215}
_MEAN, _VARIANCE = 'bn.running_mean', 'bn.running_var'


def groups(config: Mapping[str, Any]) -> int:
  """Returns how many groups a normalisation has."""
  found = config.get('norm_num_groups', GROUPS)
  if type(found) is not int or found < 1:
    raise InputError(
      f'{CONFIG}: norm_num_groups is {shown(found)}, no whole number from 1'
    )
  return found


def check(config: Mapping[str, Any], said: Mapping[str, Any]) -> None:
  """Raises InputError where a config contradicts the arrays.

  Args:
    said: what a config says of such arrays.
  """
  for key, value in said.items():
    given = config.get(key)
    if given is not None and given != value:
      raise InputError(
        f'{CONFIG} says {key}={shown(given)}, and the arrays say '
        f'{shown(value)}: they are of two models'
      )


def said_by_resnet(
  arrays: Arrays, network: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns what a config says of arrays.

  Args:
    network: of `resnet.measure`.
  """
  multipliers = network['multipliers']
  attending = [2**i in network['attention'] for i in range(len(multipliers))]
  widths = [network['channels'] * m for m in multipliers]
  outer = network['decoder_channels'] or network['channels']
  found = {
    '_class_name': 'AutoencoderKL',
    'in_channels': arrays['encoder.conv_in.weight'].shape[1],
    'block_out_channels': widths,
    'decoder_block_out_channels': [outer * m for m in multipliers],
    'layers_per_block': network['blocks'],
    'latent_channels': network['D'],
    'mid_block_add_attention': network['middle_attention'],
    'down_block_types': [
      'AttnDownEncoderBlock2D' if x else 'DownEncoderBlock2D' for x in attending
    ],
    'up_block_types': [
      'AttnUpDecoderBlock2D' if x else 'UpDecoderBlock2D'
      for x in reversed(attending)
    ],
    'act_fn': 'silu',
  }
  if CODEBOOK in arrays:
    codes, width = arrays[CODEBOOK].shape
    found |= {'_class_name': 'VQModel', 'norm_type': 'group'}
    found |= {'num_vq_embeddings': codes, 'vq_embed_dim': width}
    found['latent_channels'] = len(arrays['encoder.conv_out.weight'])
    return found
  if _MEAN in arrays:
    found['_class_name'] = 'AutoencoderKLFlux2'
  for name in 'quant_conv', 'post_quant_conv':
    found[f'use_{name}'] = f'{name}.weight' in arrays
  return found


def latent_scale(
  config: Mapping[str, Any], d: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns scale and shift, float32 [D], of a config."""
  default = _SCALES.get(config.get('_class_name', ''), 1.0)
  scale = np.full(d, _numbers(config, 'scaling_factor', 1, default))
  shift = np.full(d, _numbers(config, 'shift_factor', 1, 0.0))
  if config.get('latents_mean') is not None:
    shift = _numbers(config, 'latents_mean', d, 0.0)
    scale = scale / _numbers(config, 'latents_std', d, 1.0)
  return scale.astype(np.float32), shift.astype(np.float32)


def _numbers(
  config: Mapping[str, Any], key: str, count: int, default: float
) -> np.ndarray:
  """Reads a number, or a list of `count` of them; one of null is the default.

  Numbers that float32 does not hold are refused, and so is 0 but where it is
  the default.
  """
  said = config.get(key)
  if said is None:
    return np.full(count, default)
  given = said if isinstance(said, list) else [said]
  fit = all(
    type(x) in (int, float)
    and (1e-30 < abs(x) < 1e30 or (x == 0 and not default))
    for x in given
  )
  if not fit or len(given) != count:
    raise InputError(
      f'{CONFIG}: {key} is {shown(said)}, not '
      + ('a number' if count == 1 else f'{count} numbers')
    )
  return np.array(given, np.float64)


def patches(
  config: Mapping[str, Any], arrays: Arrays, d: int
) -> Patches | None:
  """Returns the statistics of 2x2 patches of the VAE of FLUX.2; None of others.

  They are those of a batch normalisation without weights.

  Raises:
    InputError: an array is missing or misshapen.
  """
  if _MEAN not in arrays:
    return None
  mean, variance = (named(arrays, x, [4 * d]) for x in (_MEAN, _VARIANCE))
  more = _numbers(config, 'batch_norm_eps', 1, 1e-4)[0]
  deviation = np.sqrt(np.maximum(variance, 0) + more)
  return Patches(2, (1 / deviation).astype(np.float32), mean)


def pooled(patches: Patches) -> tuple[np.ndarray, np.ndarray]:
  """Returns scale and shift [D] of all positions of patches together."""
  means = patches.shift.reshape(-1, patches.side**2)
  variances = patches.scale.reshape(means.shape) ** -2.0
  deviation = np.sqrt(variances.mean(1) + means.var(1))
  return (1 / deviation).astype(np.float32), means.mean(1)
