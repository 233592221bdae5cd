"""Sparse codes by learned iterative thresholding.

P. Xiao et al., "SC-VAE: sparse coding-based variational autoencoder with
learned ISTA", Pattern Recognition 161, 2025, arXiv 2303.16666. Written from the
equations. Unlike in the paper, the atoms have norm 1, so that lambda keeps its
meaning; the constant c is learned as a multiple of the dictionary's squared
norm and stays where steps converge; and the first step is like the others.
The dictionary starts as an overcomplete DCT over the channels. `keep` is not
of the paper: it shows the bits that its coefficients cost.
"""

from typing import Annotated, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import Latent, site_mean
from lasers_jax.bottlenecks.coefficients import Coefficients
from lasers_jax.bottlenecks.dense import Dense
from lasers_jax.coding import SparseCode
from lasers_jax.coding.ista import dct_dictionary, ista, largest_eigenvalue
from lasers_jax.core.ranges import Amount, Count, Decay, Range


class Lista(Dense):
  """Codes each site by steps of soft thresholding (SC-VAE section 3).

  The gradient goes through the steps, to encoder, dictionary and c.

  Losses: `latent`, mean |z - q|², with gradient to both. There is no loss of
  sparsity: the thresholds make the code sparse.

  Attributes:
    K: atoms.
    iterations: steps of thresholding.
    penalty: lambda, the weight of |s|₁. A latent whose products with all atoms
      are smaller is coded as zero, and passes no gradient of the decoder.
    learning: how the dictionary learns. 'gradient': a parameter; 'fixed': it
      stays the DCT.
    keep: the coefficients that are stored; None stores all K as float32, and is
      continuous. Training decodes all of them, evaluation what is stored.
    coefficient_bits: bits b of a stored coefficient, where `keep` is set: one
      of 2^b learned levels, as in `Lasers`.
    decay: of the moving averages of the levels.
  """

  CHOICES: ClassVar = {'learning': ('gradient', 'fixed')}

  loss_weights: ClassVar = {'latent': 1.0}
  adjustable = ('coefficient_bits',)

  iterations: Count = 16
  penalty: Amount = 0.1
  learning: str = 'gradient'
  coefficient_bits: Annotated[int, Range(1, 12)] = 8
  decay: Decay = 0.99

  def setup(self):
    self.check()
    self.declare(self._home, 'dictionary', _dct, (self.D, self.K))
    # c over the largest eigenvalue of the dictionary, A A'.
    self.ratio = self.param('ratio', lambda key: jnp.ones((), jnp.float32))
    if self.keep is not None:
      bits = self.coefficient_bits
      self.coefficients = Coefficients(self.K, bits, self.decay)

  @property
  def _home(self) -> str:
    return 'params' if self.learning == 'gradient' else 'codebook'

  def atoms(self) -> Array:
    rows = self._atoms().T
    if self.keep is not None:
      rows *= self.coefficients.usual()[:, None]
    return rows[:, None, None]

  def multiples(self, z: Array) -> Array:
    """Returns the numbers that coding z rounds to levels: float32 [N, keep].

    They are coefficients, in units of the usual size of those of their atoms.
    """
    kept = self._kept(self._values(z))
    found = kept.coefficients / self.coefficients.usual()[kept.atoms]
    return found.reshape(-1, found.shape[-1])

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    coefficients = self._values(z)
    held = lax.stop_gradient(coefficients)
    codes = self._store(held)
    quantized = self._combine(coefficients) if train else self.decode(codes)
    losses = {'latent': site_mean((z - quantized) ** 2, mask)}
    stats = self._stats(z, quantized, held, codes, mask)
    if isinstance(codes, SparseCode) and self.tracks(train):
      # Last, since it changes sizes and levels.
      counted = jnp.ones(z.shape[:-1], bool) if mask is None else mask
      weights = jnp.broadcast_to(counted[..., None], codes.atoms.shape)
      kept = jnp.take_along_axis(held, codes.atoms, axis=-1)
      self.coefficients.track(codes.atoms, kept, codes.coefficients, weights)
    return Latent(quantized.astype(z.dtype), codes, losses, stats)

  def initialize(self, z: Array) -> None:
    """Fits sizes and levels to a first batch; the dictionary stays the DCT."""
    if self.keep is not None:
      self.coefficients.fit(self._kept(self._values(z)).coefficients)

  def _atoms(self) -> Array:
    """The dictionary, normalized: averaged weights are not."""
    return coding.normalize_atoms(self.get_variable(self._home, 'dictionary'))

  def _values(self, z: Array) -> Array:
    atoms = self._atoms()
    # Steps diverge below a half, and a zero dictionary has no eigenvalue.
    c = jnp.maximum(self.ratio, 0.5) * largest_eigenvalue(atoms)
    c = jnp.maximum(c, 1e-6)
    signals = z.reshape(-1, self.D)
    rows = ista(signals, atoms, c, self.penalty, self.iterations)
    return rows.reshape(*z.shape[:-1], self.K)

  def _round(self, kept: SparseCode) -> Array:
    return self.coefficients.store(*kept)

  def _restore(self, codes: SparseCode) -> Array:
    return self.coefficients.read(*codes)


def _dct(key: Array, shape: tuple[int, int]) -> Array:
  del key  # nothing is drawn
  return dct_dictionary(*shape)
