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
from lasers_jax.bottlenecks.base import Latent, site_mean
from lasers_jax.bottlenecks.dense import Dense
from lasers_jax.coding.ista import dct_dictionary, ista, largest_eigenvalue

LEARNING = ('gradient', 'fixed')


class Lista(Dense):
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

  steps: int = 16
  penalty: float = 0.1
  learning: str = 'gradient'
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
    super().check()
    if self.steps < 1:
      raise ValueError(f'steps must be at least 1, got {self.steps}')
    if self.penalty < 0:
      raise ValueError(f'penalty must not be negative, got {self.penalty}')
    if self.coefficient_bits < 2:
      raise ValueError(
        f'coefficient_bits must be at least 2: {self.coefficient_bits}'
      )

  @property
  def _home(self) -> str:
    return 'params' if self.learning == 'gradient' else 'codebook'

  @property
  def _value_bits(self) -> int:
    return self.coefficient_bits

  def atoms(self) -> Array:
    return (self.scale.value / 2 * self._atoms().T)[:, None, None]

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    coefficients = self._values(z)
    held = lax.stop_gradient(coefficients)
    codes = self._store(held)
    quantized = self._combine(coefficients) if train else self.decode(codes)
    losses = {'latent': site_mean((z - quantized) ** 2, mask)}
    stats = self._stats(z, quantized, held, codes, mask)
    if self.tracks(train):  # last, since it changes the scale
      if mask is not None:
        held = jnp.where(mask[..., None], held, 0.0)
      largest = jnp.max(jnp.abs(held))
      self.scale.value += (1 - self.decay) * (largest - self.scale.value)
    return Latent(quantized.astype(z.dtype), codes, losses, stats)

  def initialize(self, z: Array) -> None:
    """Fits the scale to a first batch; the dictionary stays the DCT."""
    self.scale.value = jnp.max(jnp.abs(self._values(z)))

  def _atoms(self) -> Array:
    """The dictionary, normalized: averaged weights are not."""
    return coding.normalize_atoms(self.get_variable(self._home, 'dictionary'))

  def _values(self, z: Array) -> Array:
    atoms = self._atoms()
    # Steps diverge below a half, and a zero dictionary has no eigenvalue.
    c = jnp.maximum(self.ratio, 0.5) * largest_eigenvalue(atoms)
    c = jnp.maximum(c, 1e-6)
    signals = z.reshape(-1, self.D)
    rows = ista(signals, atoms, c, self.penalty, self.steps)
    return rows.reshape(*z.shape[:-1], self.K)

  def _round(self, coefficients: Array) -> Array:
    """Signed integers of coefficient_bits."""
    return coding.quantize(coefficients, self._scales(), self.coefficient_bits)

  def _restore(self, bins: Array) -> Array:
    return coding.dequantize(bins, self._scales(), self.coefficient_bits)

  def _scales(self) -> Array:
    return jnp.full(self.keep, jnp.maximum(self.scale.value, 1e-12))


def _dct(key: Array, shape: tuple[int, int]) -> Array:
  del key  # nothing is drawn
  return dct_dictionary(*shape)
