"""Bits of a prior on held-out images, or the loss of one without any."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from lasers_jax.evaluation.conditional import bits_per_pixel
from lasers_jax.experiment.priors import running
from lasers_jax.priors.maps.base import MapPrior


def measure(
  prior: MapPrior,
  variables: Any,
  rows: Mapping[str, np.ndarray],
  mesh: Mesh,
  pixels: int,
) -> dict[str, Any]:
  """Measures a prior on rows of a view.

  Args:
    rows: `view` [n, H, W, ...] and `label` [n].
    pixels: of an image.

  Returns:
    For codes: `bits_per_pixel` (see `conditional.bits_per_pixel`);
    `unconditional`, the mean without the class, where there are any; and
    `bits_per_site`. For latents: `loss`, the mean loss.
  """
  each = running.measure(prior, variables, rows, mesh)
  if prior.EXACT is None:
    return {'loss': float(each.mean()), 'images': len(each)}
  found = {
    'bits_per_pixel': bits_per_pixel(each, pixels, prior.classes, prior.EXACT),
    'bits_per_site': float(each.sum(axis=3, dtype=np.float64).mean()),
    'images': len(each),
  }
  if prior.classes:
    none = {**rows, 'label': np.full(len(each), prior.classes)}
    plain = running.measure(prior, variables, none, mesh)
    plain = bits_per_pixel(plain, pixels, 0, prior.EXACT)
    found['unconditional'] = plain['given_class']['mean']
  return found


def scalars(found: Mapping[str, Any]) -> dict[str, float]:
  """Returns the numbers of `measure` for the log."""
  names = 'loss', 'unconditional', 'bits_per_site'
  numbers = {x: found[x] for x in names if x in found}
  if 'bits_per_pixel' in found:
    mean = found['bits_per_pixel']['given_class']['mean']
    numbers = {'bits_per_pixel': mean, **numbers}
  return numbers
