"""A degradation of one's own: few levels of each colour.

import toy_degradation  # before a config is read that names it
config['degradation'] = {'name': 'posterize', 'levels': 4}
"""

import dataclasses

import jax.numpy as jnp

from lasers_jax.core.ranges import Several
from lasers_jax.degradations import DEGRADATIONS, Degradation
from lasers_jax.degradations.base import whole


@dataclasses.dataclass(frozen=True)
class Posterization(Degradation):
  """Rounds colours to `levels`, the key `degradation.levels` of a config.

  `key` is the image's own: whatever is random is drawn by it.
  """

  levels: Several = 8

  def __call__(self, image, key):
    steps = self.levels - 1
    return whole(jnp.round(steps * image) / steps)


DEGRADATIONS['posterize'] = Posterization
