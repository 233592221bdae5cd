"""Soft convex quantization.

T. Gautam et al., "Soft convex quantization: revisiting vector quantization with
convex optimization", L4DC 2024, arXiv 2310.03004. No code was released; this is
the relaxation of algorithm 2, with codes that start as signals. Rows with
`keep` are not of the paper: they show what its weights cost as bits.
"""

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Bottleneck,
  Latent,
  fixed_length_bits,
  relative_error,
  site_mean,
  use_stats,
)
from lasers_jax.coding import SparseCode
from lasers_jax.coding.convex import combine, convex_weights
from lasers_jax.coding.keep import (
  dequantize_shares,
  keep_largest,
  quantize_shares,
)


class SCQ(Bottleneck):
  """Codes each site as a convex combination of K codes (equation 8).

  The gradient goes through the combination and its weights, to encoder and
  codes.

  Losses: `quantization`, mean |z - q|², with gradient to both.

  Attributes:
    K: codes.
    penalty: lambda, which draws the weights towards the nearest code alone; at
      least 1e-3, which float32 needs.
    keep: the weights that are stored; None stores all K as float32, and is
      continuous. Training decodes all weights, evaluation what is stored.
    weight_bits: bits of a stored weight, where `keep` is set.
  """

  K: int = 512
  penalty: float = 0.1
  keep: int | None = None
  weight_bits: int = 8

  def setup(self):
    self.check()
    self.declare('params', 'codes', _unit_normal, (self.K, self.D))

  def check(self) -> None:
    if self.K < 2:
      raise ValueError(f'K must be at least 2, got K = {self.K}')
    if self.penalty < 1e-3:
      raise ValueError(f'penalty must be at least 0.001, got {self.penalty}')
    if self.keep is not None and not 1 <= self.keep <= self.K:
      raise ValueError(
        f'keep must be None or from 1 to K = {self.K}, got {self.keep}'
      )
    if self.weight_bits < 1:
      raise ValueError(f'weight_bits must be at least 1: {self.weight_bits}')

  @property
  def bits_per_site(self) -> float | None:
    if self.keep is None:
      return None
    return self.keep * (fixed_length_bits(self.K) + self.weight_bits)

  @property
  def symbols(self) -> int:
    return 0 if self.keep is None else self.K

  def atoms(self) -> Array:
    return self._codes()[:, None, None]

  def indices(self, codes: SparseCode) -> Array:
    return codes.atoms

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    weights = self._weights(z)
    codes = self._store(lax.stop_gradient(weights))
    quantized = self._combine(weights) if train else self.decode(codes)
    losses = {'quantization': site_mean((quantized - z) ** 2, mask)}
    active = site_mean(jnp.sum(weights > 0, axis=-1), mask)
    stats = {
      'relative_error': relative_error(z, quantized, mask),
      'active': active,
    }
    if self.keep is not None:
      stats.update(use_stats(codes.atoms, self.K, mask)[1])
    return Latent(quantized.astype(z.dtype), codes, losses, stats)

  def encode(self, z: Array) -> Array | SparseCode:
    """Codes z [..., D]: the weights float32 [..., K].

    With `keep`, SparseCode of [..., keep]: the codes of the largest weights and
    these as int32 in [0, 2^weight_bits - 1].
    """
    return self._store(self._weights(z))

  def decode(self, codes: Array | SparseCode) -> Array:
    """Adds up the codes: float32 [..., D]."""
    if self.keep is None:
      return self._combine(codes)
    shares = dequantize_shares(codes.coefficients)
    flat = SparseCode(
      codes.atoms.reshape(-1, self.keep), shares.reshape(-1, self.keep)
    )
    rows = coding.reconstruct(flat, self._codes().T)
    return rows.reshape(*codes.atoms.shape[:-1], self.D)

  def initialize(self, z: Array) -> None:
    """Takes signals of a first batch as codes."""
    signals = z.reshape(-1, self.D).astype(jnp.float32)
    codes = coding.pick_signals(self.make_rng('bottleneck'), signals, self.K)
    self.put_variable('params', 'codes', codes)

  def _codes(self) -> Array:
    return self.get_variable('params', 'codes')

  def _weights(self, z: Array) -> Array:
    signals = z.reshape(-1, self.D)
    weights = convex_weights(signals, self._codes(), self.penalty)
    return weights.reshape(*z.shape[:-1], self.K)

  def _combine(self, weights: Array) -> Array:
    rows = combine(weights.reshape(-1, self.K), self._codes())
    return rows.reshape(*weights.shape[:-1], self.D)

  def _store(self, weights: Array) -> Array | SparseCode:
    if self.keep is None:
      return weights
    kept = keep_largest(weights, self.keep)
    levels = quantize_shares(kept.coefficients, self.weight_bits)
    return SparseCode(kept.atoms, levels)


def _unit_normal(key: Array, shape: tuple[int, int]) -> Array:
  return coding.random_dictionary(key, shape[::-1]).T
