"""Frozen codes seen through a learned linear map.

Y. Zhu et al., "Addressing representation collapse in vector quantized models
with one linear layer", arXiv 2411.02038 (SimVQ). Unlike the released code,
stored codes are decoded by C W + b, by which they were coded, and not by C; and
the map starts from the mean and the spread of a first batch: few codes that lie
far from the data, or around one point of it, are known to stay unused.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax import coding
from lasers_jax.bottlenecks.base import Latent, LookUp


class SimVQ(LookUp):
  """Codes each site with the nearest row of C W + b, of which C is frozen.

  The gradient of one chosen code moves them all: nothing dies, and nothing is
  revived. Losses: `codebook`, mean |sg(z) - q|², which reaches W and b alone,
  and `commitment`, mean |z - sg(q)|², which reaches the encoder alone.

  Attributes:
    K: codes.
  """

  loss_weights: ClassVar = {'codebook': 1.0, 'commitment': 0.25}
  held = True

  def setup(self):
    self.check()
    scale = self.D**-0.5
    self.codes = self.variable('codebook', 'codes', self._draw_codes)
    self.map = self.param('map', _uniform, (self.D, self.D), scale)
    self.bias = self.param('bias', _uniform, (self.D,), scale)

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    return self._coded(z, train, mask)[0]

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [...], in [0, K)."""
    indices = coding.nearest_code(self._signals(z), self._codes())
    return indices.reshape(z.shape[:-1])

  def initialize(self, z: Array) -> None:
    """Gives the effective codes the mean and the spread of the signals."""
    signals = self._signals(z)
    spread = jnp.std(signals, axis=0) + 1e-6
    # The frozen codes have the spread D^-1/2.
    self.put_variable('params', 'map', jnp.diag(self.D**0.5 * spread))
    self.put_variable('params', 'bias', jnp.mean(signals, axis=0))

  def _codes(self) -> Array:
    """The codes as they are used: C W + b, [K, D]."""
    # At full precision, or coding and decoding might round differently.
    product = jnp.matmul(self.codes.value, self.map, precision='highest')
    return product + self.bias[None]

  def _draw_codes(self) -> Array:
    key = self.make_rng('params')
    return self.D**-0.5 * jax.random.normal(key, (self.K, self.D), jnp.float32)


def _uniform(key: Array, shape: tuple[int, ...], limit: float) -> Array:
  """As the paper's linear layer starts: uniform in [-limit, limit]."""
  return jax.random.uniform(
    key, shape, jnp.float32, minval=-limit, maxval=limit
  )
