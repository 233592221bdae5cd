"""Sparse codes over a learned dictionary.

X. Li and A. D. Sarwate, "LASERS: latent space encoding for representations
with sparsity for generative modeling", arXiv 2409.11184. Unlike the released
code, a signal is one site of one image, never a mixture of several.
"""

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Codebook,
  Latent,
  codebook_losses,
  fixed_length_bits,
  relative_error,
  use_stats,
)
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.patches import from_patches, to_patches
from lasers_jax.coding import SparseCode

LEARNING = ('gradient', 'online', 'fixed')
GRADIENTS = ('straight_through', 'refit')


class Lasers(Codebook):
  """Codes each site with S of K atoms (LASERS section 3: the DL bottleneck).

  Losses: `dictionary`, mean |sg(z) - q|², which reaches the dictionary alone,
  and `commitment`, mean |z - sg(q)|², which reaches the encoder alone.

  Attributes:
    S: atoms used for a signal, at most K.
    learning: how the dictionary learns. 'gradient': a parameter, moved by the
      dictionary loss; 'online': by Mairal et al. 2009 from the running
      statistics of codes and signals, in the step; 'fixed': not at all.
    gradient: what reaches z from the decoder. 'straight_through': all of its
      gradient, as in the paper; 'refit': the exact gradient of the fit by the
      chosen atoms, which is the part within their span. It also reaches the
      dictionary, where that is a parameter.
    coefficient_bits: bits of a stored coefficient, at least 2; None stores
      float32, and counts 32. Training decodes the coefficients before they
      are rounded, evaluation decodes what would be stored.
    patch: side p of the latent patches that are the signals.
    progressive: the losses are means over the fits with the first 1, 2, ... S
      atoms, so that a model serves every S up to its own.
    forgetting: of the online statistics, per step.
    decay: of the moving averages of use and of coefficient scales.
  """

  S: int = 5
  learning: str = 'gradient'
  gradient: str = 'straight_through'
  coefficient_bits: int | None = 8
  patch: int = 1
  progressive: bool = False
  forgetting: float = 0.98

  def setup(self):
    self.check()
    shape = (self.D * self.patch**2, self.K)
    self.declare(self._home, 'dictionary', coding.random_dictionary, shape)
    if self.learning == 'online':
      self.statistics = self.variable(
        'codebook', 'statistics', coding.init_statistics, *shape
      )
    self.use = self.variable('codebook', 'use', jnp.ones, (self.K,))
    self.scales = self.variable('codebook', 'scales', jnp.ones, (self.S,))

  def check(self) -> None:
    if self.learning not in LEARNING:
      raise ValueError(f'learning must be one of {LEARNING}: {self.learning!r}')
    if self.gradient not in GRADIENTS:
      raise ValueError(
        f'gradient must be one of {GRADIENTS}: {self.gradient!r}'
      )
    if not 1 <= self.S <= self.K:
      raise ValueError(f'S must be from 1 to K = {self.K}, got S = {self.S}')
    if self.coefficient_bits is not None and self.coefficient_bits < 2:
      raise ValueError('coefficient_bits must be None or at least 2')
    if self.patch < 1:
      raise ValueError(f'patch must be at least 1, got {self.patch}')

  @property
  def _home(self) -> str:
    return 'params' if self.learning == 'gradient' else 'codebook'

  @property
  def bits_per_site(self) -> float:
    coefficient = self.coefficient_bits or 32
    bits = self.S * (fixed_length_bits(self.K) + coefficient)
    return bits / self.patch**2

  @property
  def patch_side(self) -> int:
    return self.patch

  def atoms(self) -> Array:
    rows = self._step_scales()[0] / 2 * self._atoms().T
    return rows.reshape(self.K, self.patch, self.patch, self.D)

  def indices(self, codes: SparseCode) -> Array:
    return codes.atoms

  def __call__(self, z: Array, train: bool, mask: Array | None = None):
    if not train:
      codes = self.encode(z)
      quantized = self.decode(codes).astype(z.dtype)
      return self._latent(z, quantized, codes, mask)
    signals, atoms = self._signals(z), self._atoms()
    code = coding.batch_omp(signals, atoms, self.S)
    held = lax.stop_gradient(code)
    quantized = self._decode_signals(z, held, atoms)
    latent = self._latent(z, quantized, self._store(z, held), mask)
    if self.progressive:
      latent.losses.update(self._progressive_losses(z, mask))
    if self.gradient == 'refit':
      quantized = self._decode_signals(z, code, atoms)
    else:
      quantized = straight_through(z, quantized)
    if self.tracks(train):  # last, since it changes dictionary and scales
      self._track(lax.stop_gradient(signals), held, self._patch_mask(mask))
    return latent.replace(quantized=quantized)

  def encode(self, z: Array) -> SparseCode:
    """Codes z [..., H, W, D] as it would be stored.

    Returns:
      SparseCode of [..., H/p, W/p, S]: atoms int32, and coefficients int32
      bins, or float32 where coefficient_bits is None.
    """
    code = coding.batch_omp(self._signals(z), self._atoms(), self.S)
    return self._store(z, code)

  def decode(self, codes: SparseCode) -> Array:
    """Turns stored codes back into quantized latents float32 [..., H, W, D]."""
    coefficients = codes.coefficients
    if self.coefficient_bits is not None:
      coefficients = coding.dequantize(
        coefficients, self._step_scales(), self.coefficient_bits
      )
    flat = SparseCode(
      codes.atoms.reshape(-1, self.S), coefficients.reshape(-1, self.S)
    )
    signals = coding.reconstruct(flat, self._atoms())
    signals = signals.reshape(*codes.atoms.shape[:-1], -1)
    return from_patches(signals, self.patch)

  def initialize(self, z: Array) -> None:
    """Takes signals of a first batch as atoms, and fits the scales to it."""
    signals = self._signals(z)
    picked = coding.pick_signals(self.make_rng('bottleneck'), signals, self.K)
    atoms = coding.normalize_atoms(picked.T)
    self.put_variable(self._home, 'dictionary', atoms)
    code = coding.batch_omp(signals, atoms, self.S)
    self.scales.value = _largest_magnitudes(code)

  def revive(self, z: Array) -> None:
    """Replaces dead atoms and twins by residuals of badly coded signals."""
    if self.learning == 'fixed':
      return
    signals, atoms = self._signals(z), self._atoms()
    code = coding.batch_omp(signals, atoms, self.S)
    residuals = signals - coding.reconstruct(code, atoms)
    atoms, revived = coding.revive_atoms(
      self.make_rng('bottleneck'),
      atoms,
      self.use.value,
      residuals,
      self.revive_below,
      self.revive_limit,
    )
    stored = self.get_variable(self._home, 'dictionary')
    stored = jnp.where(revived[None], atoms, stored)
    self.put_variable(self._home, 'dictionary', stored)
    self.use.value = jnp.where(revived, 1.0, self.use.value)
    if self.learning == 'online':
      self.statistics.value = coding.forget_atoms(
        self.statistics.value, revived
      )

  def _signals(self, z: Array) -> Array:
    """The signals [N, p·p·D] of z [..., H, W, D]."""
    patches = to_patches(z.astype(jnp.float32), self.patch)
    return patches.reshape(-1, patches.shape[-1])

  def _decode_signals(self, z: Array, code: SparseCode, atoms: Array) -> Array:
    signals = self._as_map(z, coding.reconstruct(code, atoms))
    return from_patches(signals, self.patch).astype(z.dtype)

  def _as_map(self, z: Array, rows: Array) -> Array:
    """Gives rows [N, ...] the dimensions [..., H/p, W/p, ...] of z's sites."""
    *lead, h, w, _ = z.shape
    return rows.reshape(*lead, h // self.patch, w // self.patch, -1)

  def _atoms(self) -> Array:
    """The dictionary, normalized: averaged weights are not."""
    return coding.normalize_atoms(self.get_variable(self._home, 'dictionary'))

  def _store(self, z: Array, code: SparseCode) -> SparseCode:
    coefficients = code.coefficients
    if self.coefficient_bits is not None:
      coefficients = coding.quantize(
        coefficients, self._step_scales(), self.coefficient_bits
      )
    return SparseCode(
      self._as_map(z, code.atoms), self._as_map(z, coefficients)
    )

  def _step_scales(self) -> Array:
    """The scales [S]; steps beyond those trained have the last one's."""
    trained = self.scales.value
    steps = jnp.minimum(jnp.arange(self.S), trained.shape[0] - 1)
    return jnp.maximum(trained[steps], 1e-12)

  def _patch_mask(self, mask: Array | None) -> Array | None:
    """Says which signals count, [N]: those of which every site does."""
    if mask is None:
      return None
    return jnp.all(to_patches(mask[..., None], self.patch), axis=-1).reshape(-1)

  def _track(self, signals: Array, code: SparseCode, mask) -> None:
    """Updates the statistics and, in 'online' learning, the dictionary."""
    use, _ = use_stats(code.atoms, self.K, mask)
    self.use.value += (1 - self.decay) * (use - self.use.value)
    if mask is not None:
      coefficients = jnp.where(mask[:, None], code.coefficients, 0.0)
      code = code._replace(coefficients=coefficients)
    largest = _largest_magnitudes(code)
    self.scales.value += (1 - self.decay) * (largest - self.scales.value)
    if self.learning == 'online':
      self.statistics.value = coding.update_statistics(
        self.statistics.value, signals, code, self.forgetting
      )
      atoms = coding.update_dictionary(self._atoms(), self.statistics.value)
      self.put_variable('codebook', 'dictionary', atoms)

  def _progressive_losses(self, z: Array, mask) -> dict[str, Array]:
    """Averages the losses over the prefixes, as RQ-VAE does over depths."""
    atoms, each = self._atoms(), []
    chosen, path = coding.batch_omp_path(
      *lax.stop_gradient((self._signals(z), atoms)), self.S
    )
    for s in range(1, self.S + 1):
      prefix = SparseCode(chosen[:, :s], path[:, s - 1, :s])
      each.append(_losses(z, self._decode_signals(z, prefix, atoms), mask))
    return {name: sum(x[name] for x in each) / self.S for name in each[0]}

  def _latent(self, z: Array, quantized: Array, codes: SparseCode, mask):
    _, stats = use_stats(
      codes.atoms.reshape(-1, self.S), self.K, self._patch_mask(mask)
    )
    stats['relative_error'] = relative_error(z, quantized, mask)
    return Latent(quantized, codes, _losses(z, quantized, mask), stats)


def _losses(z: Array, quantized: Array, mask) -> dict[str, Array]:
  losses = codebook_losses(z, quantized, mask)
  return {
    'dictionary': losses['codebook'],
    'commitment': losses['commitment'],
  }


def _largest_magnitudes(code: SparseCode) -> Array:
  """The largest |coefficient| of each step of the pursuit: [S]."""
  return jnp.max(jnp.abs(code.coefficients), axis=0)
