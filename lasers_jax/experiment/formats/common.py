"""What the formats share: facts of a model, and what they cannot hold."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from lasers_jax.core import provenance
from lasers_jax.errors import InputError
from lasers_jax.experiment.settings import with_defaults


def statistics(model: Any) -> dict[str, Any]:
  """Returns `model.statistics()`, or {'missing': the reason}."""
  try:
    return model.statistics()
  except InputError as error:
    logging.warning('no statistics of latents: %s', error)
    return {'missing': str(error)}


def moments(model: Any) -> dict[str, list[float]]:
  """Returns mean and deviation of latents by channel, where they are known.

  The names are those of the configs of diffusers. Of a tokenizer of another
  project they are what its files say.
  """
  scale, shift = (getattr(model, name, None) for name in ('scale', 'shift'))
  if scale is not None and shift is not None:
    if (scale == 1).all() and not shift.any():
      return {}
    return {
      'latents_mean': shift.tolist(),
      'latents_std': (1 / scale).tolist(),
    }
  found = statistics(model)
  if 'mean' not in found:
    return {}
  deviations = [max(x, 1e-6) for x in found['deviation']]
  return {'latents_mean': found['mean'], 'latents_std': deviations}


def describe(model: Any, name: str) -> dict[str, Any]:
  """Returns the entries of config.json that say what was exported."""
  complete = with_defaults(model.config)
  versions = provenance.versions(provenance.commit())
  return {
    'format': name,
    'lasers_jax': versions['lasers_jax'],
    'weights': model.weights,
    'step': model.step,
    **{part: dict(complete[part]) for part in ('network', 'bottleneck')},
    **moments(model),
  }


def check_plain(model: Any, name: str) -> None:
  """Raises InputError unless images are decoded of codes alone, in one pass."""
  decoder = with_defaults(model.config)['decoder']['name']
  if decoder != 'plain':
    raise InputError(
      f"format={name!r} requires decoder.name='plain', not {decoder!r}"
    )
  if model.experiment.degradation is not None:
    raise InputError(
      f'format={name!r} requires a model without degradation: it restores '
      'images'
    )


def json_file(value: Mapping[str, Any]) -> bytes:
  """Returns a value as the content of a file of JSON."""
  return (json.dumps(value, indent=2) + '\n').encode()
