"""What integers cost, to hold files against."""

import numpy as np

from lasers_jax.codec.coder import Tables, Weighing


class Meter(Weighing):
  """Adds up what integers cost: `bits`."""

  def __init__(self, tables: Tables):
    super().__init__(tables)
    self.bits = 0.0

  def _integers(self, values, n, weights):
    shares = weights[values] / weights.sum()
    self.bits -= float(np.log2(shares).sum())
    return values
