"""Priors of latents, fitted after training: new images from a decoder."""

import dataclasses

from lasers_jax.core.ranges import read
from lasers_jax.errors import InputError, unknown
from lasers_jax.priors.vector.base import Prior, State, draw, load, save
from lasers_jax.priors.vector.flow import FlowMatching
from lasers_jax.priors.vector.gaussian import Gaussian, StandardNormal
from lasers_jax.priors.vector.gmm import GMM
from lasers_jax.priors.vector.histogram import SiteHistogram
from lasers_jax.priors.vector.kde import KDE
from lasers_jax.priors.vector.pmfs import PMFS
from lasers_jax.priors.vector.product import ProductPMF

PRIORS: dict[str, type[Prior]] = {
  'pmfs': PMFS,
  'normal': StandardNormal,
  'gaussian': Gaussian,
  'kde': KDE,
  'product': ProductPMF,
  'gmm': GMM,
  'flow': FlowMatching,
  'histogram': SiteHistogram,
}

__all__ = [
  'PRIORS',
  'Prior',
  'SiteHistogram',
  'State',
  'draw',
  'load',
  'parse',
  'save',
]


def parse(text: str) -> Prior:
  """Makes a prior of words such as 'pmfs:k=100:variant=around'.

  Raises:
    InputError: an unknown name or setting, or a value that cannot be used.
  """
  name, *settings = text.split(':')
  if name not in PRIORS:
    raise unknown('the prior', name, PRIORS)
  kind = PRIORS[name]
  fields = {field.name: field.type for field in dataclasses.fields(kind)}
  values = {}
  for setting in settings:
    key, _, value = setting.partition('=')
    if key not in fields:
      known = ', '.join(fields) or 'none at all'
      raise InputError(f'{name} has no setting {key!r}: it has {known}')
    try:
      values[key] = read(value, fields[key])
    except ValueError as error:
      raise InputError(f'{name}: {key} is {value!r}: {error}') from error
  return kind(**values)
