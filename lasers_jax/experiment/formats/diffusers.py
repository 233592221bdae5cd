"""Models as folders that the classes of diffusers read.

They are AutoencoderKL for the bottlenecks `none` and `kl`, and VQModel for
`vq`. Others are an AutoencoderKL, too, and beside it bottleneck.safetensors and
bottleneck.json, by which their codes are decoded: see `gathered`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from lasers_jax import inference
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings
from lasers_jax.experiment.formats import common
from lasers_jax.experiment.formats.gathered import gathered
from lasers_jax.pretrained.tokenizers.writing import as_diffusers

_THEIRS = ('none', 'kl', 'vq')  # bottlenecks that the classes have
_WEIGHTS = 'diffusion_pytorch_model.safetensors'


def files(model: Any) -> dict[str, bytes]:
  """Returns the files of a TrainedModel.

  The config has mean and deviation of the latents, where they are known.

  Raises:
    InputError: the classes cannot hold the model.
  """
  complete = settings.with_defaults(model.config)
  common.check_plain(model, 'diffusers')
  variables = jax.device_get(model.variables)
  arrays, found = _as_diffusers(model.experiment, complete, variables)
  if found['_class_name'] == 'AutoencoderKL':
    found |= {'scaling_factor': 1.0, **common.moments(model)}
  return {
    _WEIGHTS: save(arrays, {'format': 'pt'}),
    'config.json': common.json_file(found),
    **_coding(model, complete['bottleneck']['name']),
  }


def _coding(model: Any, kind: str) -> dict[str, bytes]:
  """Returns the files of a bottleneck that the classes do not have."""
  if kind in _THEIRS:
    return {}
  coded = gathered(model, 'diffusers')
  arrays = {k: np.array(x, order='C') for k, x in coded.arrays.items()}
  return {
    'bottleneck.safetensors': save(arrays),
    'bottleneck.json': common.json_file({'name': kind, **coded.about}),
  }


def _as_diffusers(
  experiment: settings.Experiment, config: Mapping[str, Any], variables: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The arrays and the config of a model in diffusers."""
  network, params = config['network'], variables['params']
  bottleneck, coder = config['bottleneck'], experiment.model.bottleneck
  kind = bottleneck['name']
  if bottleneck.get('value_bits'):
    raise InputError("format='diffusers' requires no bottleneck.value_bits")
  if kind in _THEIRS and experiment.model.patch != 1:
    raise InputError("format='diffusers' requires bottleneck.patch=1")
  if kind == 'vq':
    if bottleneck['distance'] != 'euclidean':
      raise InputError(
        "format='diffusers' requires bottleneck.distance='euclidean'"
      )
    every = np.arange(coder.K, dtype=np.int32)[None, None]
    codes = inference.look_up(experiment.model, variables, every)
    return as_diffusers(network, params, np.asarray(codes)[0, 0])
  if kind != 'kl':
    return as_diffusers(network, params)
  last, dense = params['encoder']['to_latent'], params['bottleneck']
  mean, variance = (_after(last, dense[x]) for x in ('mean', 'log_variance'))
  encoder = {**params['encoder'], 'to_latent': mean}
  return as_diffusers(
    network, {**params, 'encoder': encoder}, log_variance=variance
  )


def _after(
  layer: Mapping[str, np.ndarray], dense: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns a convolution and a dense map after it as one convolution."""
  matrix = dense['kernel'].astype(np.float64)
  return {
    'kernel': (layer['kernel'] @ matrix).astype(np.float32),
    'bias': (layer['bias'] @ matrix + dense['bias']).astype(np.float32),
  }
