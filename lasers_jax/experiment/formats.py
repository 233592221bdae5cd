"""Writes models into folders, of this project and of others."""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from lasers_jax import inference
from lasers_jax.core import storage
from lasers_jax.core.storage import write_text
from lasers_jax.errors import InputError, unknown
from lasers_jax.experiment import codecs, exported, settings
from lasers_jax.pretrained.tokenizers.writing import as_diffusers

FORMATS = ('diffusers',)
_WEIGHTS = 'diffusion_pytorch_model.safetensors'


def export(
  model: Any,
  folder: str,
  name: str | None = None,
  half: bool = False,
  licence: str = '',
) -> None:
  """Writes a `TrainedModel` into a folder; see its `export`."""
  if name is None:
    _write_ours(folder, model, half, licence)
  elif name not in FORMATS:
    raise unknown('format', name, FORMATS)
  elif half or licence:
    raise InputError(
      f'half and licence are not of format={name!r}: leave them out'
    )
  else:
    _write_diffusers(folder, model)


def _write_ours(folder: str, model: Any, half: bool, licence: str) -> None:
  folder = exported.check_target(folder)
  if half:
    variables = exported.halved(model.variables)
    model = dataclasses.replace(model, variables=variables)
  found = exported.Found(
    _statistics(model),
    exported.known_results(
      model.folder, model.weights, model.config['bottleneck']
    ),
    codecs.states_of(model.folder, model.weights, model.changes),
    licence,
  )
  exported.write(folder, model, found, half)


def _statistics(model: Any) -> dict[str, Any]:
  """Returns `model.statistics()`, or {'missing': the reason}."""
  try:
    return model.statistics()
  except InputError as error:
    logging.warning('no statistics of latents: %s', error)
    return {'missing': str(error)}


def _write_diffusers(folder: str, model: Any) -> None:
  """Writes a folder that diffusers reads, whole or not at all.

  It is AutoencoderKL for the bottlenecks `none` and `kl`, and VQModel for `vq`.
  The config has mean and deviation of the latents, where they are known.
  """
  folder = storage.absolute(folder)
  if storage.exists(folder) and storage.names(folder):
    raise InputError(f'{folder} is not empty: name another folder')
  complete = settings.with_defaults(model.config)
  variables = jax.device_get(model.variables)
  arrays, found = _as_diffusers(model.experiment, complete, variables)
  if found['_class_name'] == 'AutoencoderKL':
    statistics = _statistics(model)
    found['scaling_factor'] = 1.0
    if 'mean' in statistics:
      found['latents_mean'] = statistics['mean']
      found['latents_std'] = [max(x, 1e-6) for x in statistics['deviation']]
  with exported.written_whole(folder) as part:
    with storage.written_whole(os.path.join(part, _WEIGHTS)) as file:
      file.write(save(arrays, {'format': 'pt'}))
    text = json.dumps(found, indent=2)
    write_text(os.path.join(part, 'config.json'), text + '\n')


def _as_diffusers(
  experiment: settings.Experiment, config: Mapping[str, Any], variables: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The arrays and the config of a model in diffusers."""
  network, params = config['network'], variables['params']
  bottleneck, coder = config['bottleneck'], experiment.model.bottleneck
  kind = bottleneck['name']
  if kind not in ('none', 'kl', 'vq') or bottleneck.get('value_bits'):
    raise InputError(
      f"format='diffusers' holds the bottlenecks none and kl, without "
      f'value_bits, and vq: not {kind}'
    )
  if experiment.model.patch != 1:
    raise InputError("format='diffusers' requires bottleneck.patch=1")
  if config['decoder']['name'] != 'plain':
    raise InputError(
      "format='diffusers' requires decoder.name='plain', not "
      f'{config["decoder"]["name"]!r}'
    )
  if kind == 'vq':
    if bottleneck['distance'] != 'euclidean':
      raise InputError(
        "format='diffusers' requires bottleneck.distance='euclidean'"
      )
    every = np.arange(coder.K, dtype=np.int32)[None, None]
    codes = inference.look_up(experiment.model, variables, every)
    return as_diffusers(network, params, np.asarray(codes)[0, 0])
  if kind == 'none':
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
