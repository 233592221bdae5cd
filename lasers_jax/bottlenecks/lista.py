"""Sparse codes by learned iterative thresholding.

P. Xiao et al., "SC-VAE: sparse coding-based variational autoencoder with
learned ISTA", Pattern Recognition 161, 2025, arXiv 2303.16666. Written from the
equations. Unlike in the paper, the atoms have norm 1, so that lambda keeps its
meaning; the constant c is learned as a multiple of the dictionary's squared
norm and stays where steps converge; and the first step is like the others.
The dictionary starts as an overcomplete DCT over the channels. Rows with
`keep` are not of the paper: they show what its coefficients cost as bits.
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
from lasers_jax.coding.convex import combine
from lasers_jax.coding.ista import dct_dictionary, ista, largest_eigenvalue
from lasers_jax.coding.keep import keep_largest

LEARNING = ('gradient', 'fixed')


class Lista(Bottleneck):
  """Codes each site with steps of soft thresholding (SC-VAE section 3).

  The gradient goes through the steps, to encoder, dictionary and c.

  Losses: `latent`, mean |z - q|², with gradient to both. Nothing else asks for
  few atoms: the thresholds make the code sparse.

  Attributes:
    K: atoms.
    steps: of thresholding.
    penalty: lambda, the weight of |s|₁. A latent whose products with all atoms
      are smaller is coded as zero, and passes no gradient of the decoder.
    learning: how the dictionary learns. 'gradient': a parameter; 'fixed': not
      at all, it stays the DCT.
    keep: the coefficients that are stored; None stores all K as float32, and is
      continuous. Training decodes all of them, evaluation what is stored.
    coefficient_bits: bits of a stored coefficient, where `keep` is set.
    decay: of the moving average of the largest coefficient.
  """

  K: int = 512
  steps: int = 16
  penalty: float = 0.1
  learning: str = 'gradient'
  keep: int | None = None
  coefficient_bits: int = 8
  decay: float = 0.99

  def setup(self):
    self.check()
    self.declare(self._home, 'dictionary', _dct, (self.D, self.K))
    # c over the largest eigenvalue of the dictionary, A A'.
    self.ratio = self.param('ratio', lambda key: jnp.ones(()))
    self.scale = self.variable('codebook', 'scale', jnp.ones, ())

  def check(self) -> None:
    if self.learning not in LEARNING:
      raise ValueError(f'learning must be one of {LEARNING}: {self.learning!r}')
    if self.K < 2:
      raise ValueError(f'K must be at least 2, got K = {self.K}')
    if self.steps < 1:
      raise ValueError(f'steps must be at least 1, got {self.steps}')
    if self.penalty < 0:
      raise ValueError(f'penalty must not be negative, got {self.penalty}')
    if self.keep is not None and not 1 <= self.keep <= self.K:
      raise ValueError(
        f'keep must be None or from 1 to K = {self.K}, got {self.keep}'
      )
    if self.coefficient_bits < 2:
      raise ValueError(
        f'coefficient_bits must be at least 2: {self.coefficient_bits}'
      )

  @property
  def _home(self) -> str:
    return 'params' if self.learning == 'gradient' else 'codebook'

  @property
  def bits_per_site(self) -> float | None:
    if self.keep is None:
      return None
    return self.keep * (fixed_length_bits(self.K) + self.coefficient_bits)

  @property
  def symbols(self) -> int:
    return 0 if self.keep is None else self.K

  def atoms(self) -> Array:
    return (self.scale.value / 2 * self._atoms().T)[:, None, None]

  def indices(self, codes: SparseCode) -> Array:
    return codes.atoms

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    coefficients = self._coefficients(z)
    held = lax.stop_gradient(coefficients)
    codes = self._store(held)
    quantized = self._combine(coefficients) if train else self.decode(codes)
    losses = {'latent': site_mean((z - quantized) ** 2, mask)}
    stats = {
      'relative_error': relative_error(z, quantized, mask),
      'active': site_mean(jnp.sum(held != 0, axis=-1), mask),
    }
    if self.keep is not None:
      stats.update(use_stats(codes.atoms, self.K, mask)[1])
    if self.tracks(train):  # last, since it changes the scale
      if mask is not None:
        held = jnp.where(mask[..., None], held, 0.0)
      largest = jnp.max(jnp.abs(held))
      self.scale.value += (1 - self.decay) * (largest - self.scale.value)
    return Latent(quantized.astype(z.dtype), codes, losses, stats)

  def encode(self, z: Array) -> Array | SparseCode:
    """Codes z [..., D]: the coefficients float32 [..., K].

    With `keep`, SparseCode of [..., keep]: the atoms of the largest ones and
    these as signed int32 of coefficient_bits.
    """
    return self._store(self._coefficients(z))

  def decode(self, codes: Array | SparseCode) -> Array:
    """Adds up the atoms: float32 [..., D]."""
    if self.keep is None:
      return self._combine(codes)
    coefficients = coding.dequantize(
      codes.coefficients, self._scales(), self.coefficient_bits
    )
    flat = SparseCode(
      codes.atoms.reshape(-1, self.keep), coefficients.reshape(-1, self.keep)
    )
    rows = coding.reconstruct(flat, self._atoms())
    return rows.reshape(*codes.atoms.shape[:-1], self.D)

  def initialize(self, z: Array) -> None:
    """Fits the scale to a first batch; the dictionary stays the DCT."""
    self.scale.value = jnp.max(jnp.abs(self._coefficients(z)))

  def _atoms(self) -> Array:
    """The dictionary, normalized: averaged weights are not."""
    return coding.normalize_atoms(self.get_variable(self._home, 'dictionary'))

  def _coefficients(self, z: Array) -> Array:
    atoms = self._atoms()
    # Steps diverge below a half, and a zero dictionary has no eigenvalue.
    c = jnp.maximum(self.ratio, 0.5) * largest_eigenvalue(atoms)
    c = jnp.maximum(c, 1e-6)
    signals = z.reshape(-1, self.D)
    rows = ista(signals, atoms, c, self.penalty, self.steps)
    return rows.reshape(*z.shape[:-1], self.K)

  def _combine(self, coefficients: Array) -> Array:
    rows = combine(coefficients.reshape(-1, self.K), self._atoms().T)
    return rows.reshape(*coefficients.shape[:-1], self.D)

  def _store(self, coefficients: Array) -> Array | SparseCode:
    if self.keep is None:
      return coefficients
    kept = keep_largest(coefficients, self.keep)
    bins = coding.quantize(
      kept.coefficients, self._scales(), self.coefficient_bits
    )
    return SparseCode(kept.atoms, bins)

  def _scales(self) -> Array:
    return jnp.full(self.keep, jnp.maximum(self.scale.value, 1e-12))


def _dct(key: Array, shape: tuple[int, int]) -> Array:
  del key  # nothing is drawn
  return dct_dictionary(*shape)
