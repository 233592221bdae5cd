"""What integers cost, to hold files against."""

import numpy as np

from lasers_jax.codec.coder import FittedCoder
from lasers_jax.codec.tables import Tables


class Meter(FittedCoder):
  """Adds up what integers cost: `bits`."""

  def __init__(self, tables: Tables):
    super().__init__(tables)
    self.bits = 0.0

  def _integers(self, values, n, weights):
    shares = weights[values] / weights.sum()
    self.bits -= float(np.log2(shares).sum())
    return values

  def _each(self, values, shares):
    chosen = shares[np.arange(len(values)), values]
    self.bits -= float(np.log2(chosen).sum())
    return values
