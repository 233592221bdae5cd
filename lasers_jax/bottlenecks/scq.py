"""Soft convex quantization.

T. Gautam et al., "Soft convex quantization: revisiting vector quantization with
convex optimization", L4DC 2024, arXiv 2310.03004. No code was released; this is
the relaxation of algorithm 2, with codes that start as signals. `keep` is not
of the paper: it shows the bits that its weights cost.
"""

from typing import Annotated, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import Latent, site_mean
from lasers_jax.bottlenecks.dense import Dense
from lasers_jax.coding import SparseCode
from lasers_jax.coding.convex import convex_weights
from lasers_jax.coding.keep import dequantize_fractions, quantize_fractions
from lasers_jax.core.ranges import Range


class SCQ(Dense):
  """Codes each site as a convex combination of K codes (equation 8).

  The gradient goes through the combination and its weights, to encoder and
  codes.

  Losses: `quantization`, mean |z - q|², with gradient to both.

  Attributes:
    K: codes.
    penalty: lambda, which draws the weights towards the nearest code alone; at
      least 1e-3 in float32.
    keep: the weights that are stored; None stores all K as float32, and is
      continuous. Training decodes all weights, evaluation what is stored.
    coefficient_bits: bits of a stored weight, where `keep` is set.
  """

  loss_weights: ClassVar = {'quantization': 1.0}
  adjustable = ('coefficient_bits',)

  penalty: Annotated[float, Range(1e-3)] = 0.1

  def setup(self):
    self.check()
    self.declare('params', 'codes', coding.random_codes, (self.K, self.D))

  def atoms(self) -> Array:
    return self._codes()[:, None, None]

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    weights = self._values(z)
    codes = self._store(lax.stop_gradient(weights))
    quantized = self._combine(weights) if train else self.decode(codes)
    losses = {'quantization': site_mean((quantized - z) ** 2, mask)}
    stats = self._stats(z, quantized, weights, codes, mask)
    return Latent(quantized.astype(z.dtype), codes, losses, stats)

  def initialize(self, z: Array) -> None:
    """Takes signals of a first batch as codes."""
    signals = z.reshape(-1, self.D).astype(jnp.float32)
    codes = coding.pick_signals(self.make_rng('bottleneck'), signals, self.K)
    self.put_variable('params', 'codes', codes)

  def _codes(self) -> Array:
    return self.get_variable('params', 'codes')

  def _atoms(self) -> Array:
    return self._codes().T

  def _values(self, z: Array) -> Array:
    signals = z.reshape(-1, self.D)
    weights = convex_weights(signals, self._codes(), self.penalty)
    return weights.reshape(*z.shape[:-1], self.K)

  def _round(self, kept: SparseCode) -> Array:
    """Rounds to [0, 2^coefficient_bits), the largest of a site the highest."""
    return quantize_fractions(kept.coefficients, self.coefficient_bits)

  def _restore(self, codes: SparseCode) -> Array:
    return dequantize_fractions(codes.coefficients)
