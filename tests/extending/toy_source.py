"""A data source from outside the package: colour gradients, drawn when asked.

import toy_source  # before the run that names it
config.data.name, config.data.options = 'gradients:7', {'side': 32}
"""

import numpy as np

from lasers_jax.core.ranges import Count
from lasers_jax.data import as_source, register_source

SPLITS = ('train', 'validation', 'test')


class Gradients:
  """Images that go from one colour to another; the label is the direction."""

  def __init__(self, seed: int, count: int, side: int):
    self.seed, self.count, self.side = seed, count, side

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    rng = np.random.default_rng([self.seed, index])  # the same at each call
    first, last = rng.uniform(0, 255, (2, 1, 1, 3))
    ramp = np.linspace(first, last, self.side)[:, 0]
    image, label = np.uint8(ramp).repeat(self.side, axis=1), index % 2
    return {'image': image.swapaxes(0, label), 'label': label}


def open_gradients(rest, split, workdir, *, side=20, count: Count = 12):
  """Opens a split. `rest` is the seed; what follows * are data.options."""
  seed = 3 * int(rest or 0) + SPLITS.index(split)  # no image in two splits
  return as_source(Gradients(seed, count, side), split)


register_source('gradients', open_gradients)
