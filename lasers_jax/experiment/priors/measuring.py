"""Bits of a prior on held-out images, or the loss of one without any."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from lasers_jax.experiment.priors import running
from lasers_jax.metrics.statistics import summarize
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
    For codes: `bits_per_pixel`, given the class; `with_class`, with the class
    paid for; `unconditional`, without one; `bits_per_site`; `planes`, bits a
    site of each plane; `map`, bits of each site; `exact`, whether these are
    bits or an upper bound. For latents: `loss`, the mean loss.
  """
  if prior.EXACT is None:
    each = running.losses(prior, variables, rows, mesh)
    return {'loss': float(each.mean()), 'images': len(each)}
  found = running.bits(prior, variables, rows, mesh).astype(np.float64)
  of_images = found.sum(axis=(1, 2, 3))
  summary = summarize(of_images / pixels)
  bits = summary['mean']
  results = {
    'exact': prior.EXACT,
    'images': len(found),
    'bits_per_pixel': bits,
    'interval': [summary['low'], summary['high']],
    'with_class': bits,
    'bits_per_site': float(found.sum(axis=3).mean()),
    'planes': found.mean(axis=(0, 1, 2)).tolist(),
    'map': found.sum(axis=3).mean(axis=0).tolist(),
  }
  if prior.classes:
    none = {**rows, 'label': np.full(len(found), prior.classes)}
    plain = running.bits(prior, variables, none, mesh).astype(np.float64)
    results['with_class'] = bits + math.log2(prior.classes) / pixels
    results['unconditional'] = float(plain.sum(axis=(1, 2, 3)).mean()) / pixels
  return results


def scalars(results: Mapping[str, Any]) -> dict[str, float]:
  """Returns the numbers of `measure` for the log."""
  names = 'loss', 'bits_per_pixel', 'unconditional', 'bits_per_site'
  return {x: results[x] for x in names if x in results}
