"""Returns the sections of a config for a bottleneck by its name.

The classes of BOTTLENECKS know all of it: there is no list here.
"""

import dataclasses
from typing import Any

from lasers_jax.bottlenecks import BOTTLENECKS
from lasers_jax.errors import InputError, unknown
from lasers_jax.experiment.settings import with_defaults

INNER = 'vq'  # the bottleneck to copy, where a name has none
_SIZES = ('K', 'initial_points')  # fields that mean a number of codes

Section = dict[str, Any]


def choose(name: str, K: int = 512) -> tuple[Section, Section]:
  """Returns the sections `bottleneck` and `loss.weights` of a bottleneck.

  Args:
    name: in BOTTLENECKS; a name such as product-fsq makes copies of another
      bottleneck than vq.
    K: codes, of those that have a codebook.

  Raises:
    InputError: there is no such bottleneck.
  """
  section, weights = _chosen(name, K)
  section = with_defaults({'bottleneck': section})['bottleneck']
  # The pixel loss is a mean over [0, 1], and small.
  return section, {'pixel': 10.0, **weights}


def _chosen(name: str, K: int) -> tuple[Section, Section]:
  """Returns a section without its defaults, and the weights of losses."""
  outer, *inner = name.split('-', 1)
  if outer not in BOTTLENECKS:
    raise unknown('the bottleneck', outer, BOTTLENECKS)
  kind = BOTTLENECKS[outer]
  fields = {field.name for field in dataclasses.fields(kind)}
  section: Section = {'name': outer} | {
    size: K for size in _SIZES if size in fields
  }
  weights = dict(kind.loss_weights)
  if 'inner' in fields:
    section['inner'], of_inner = _chosen(inner[0] if inner else INNER, K)
    weights = {**of_inner, **weights}
  elif inner:
    raise InputError(f'{outer} is not made of copies of another: {name!r}')
  return section, weights
