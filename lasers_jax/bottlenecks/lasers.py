"""Sparse codes over a learned dictionary.

X. Li and A. D. Sarwate, "LASERS: latent space encoding for representations
with sparsity for generative modeling", arXiv 2409.11184. Unlike the released
code, a signal is one site of one image, never a mixture of several; the atoms
of a site are stored as a set; and coefficients are stored as integers, in
training too.
"""

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Codebook,
  Latent,
  codebook_losses,
  relative_error,
  use_stats,
)
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.patches import from_patches, to_patches
from lasers_jax.coding import SparseCode
from lasers_jax.coding.positions import position_bits
from lasers_jax.coding.scalar import (
  Levels,
  nearest_level,
  spread_levels,
  update_levels,
)

LEARNING = ('gradient', 'online', 'fixed')
GRADIENTS = ('straight_through', 'refit')
MOST_BITS = 12
# Of the size of coefficients, which grow fast at first: where the outermost
# level lags behind, commitment holds the latents back.
SCALE_DECAY = 0.9


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
    coefficient_bits: bits b of a stored coefficient, which is one of 2^b
      learned multiples of the usual size of coefficients, the same for all;
      None stores float32, and counts 32.
    patch: side p of the latent patches that are the signals.
    progressive: the losses are means over the fits with the first 1, 2, ... S
      atoms, so that a model serves every S up to its own.
    forgetting: of the online statistics, per step.
    decay: of the moving averages of use and of the levels.
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
    self.scale = self.variable('codebook', 'scale', jnp.ones, ())
    if self.coefficient_bits is not None:
      self.levels = self.variable(
        'codebook', 'levels', self._spread, jnp.linspace(-1.0, 1.0)
      )

  def check(self) -> None:
    if self.learning not in LEARNING:
      raise ValueError(f'learning must be one of {LEARNING}: {self.learning!r}')
    if self.gradient not in GRADIENTS:
      raise ValueError(
        f'gradient must be one of {GRADIENTS}: {self.gradient!r}'
      )
    if not 1 <= self.S <= self.K:
      raise ValueError(f'S must be from 1 to K = {self.K}, got S = {self.S}')
    if self.coefficient_bits is not None and not (
      1 <= self.coefficient_bits <= MOST_BITS
    ):
      raise ValueError(
        f'coefficient_bits must be None or from 1 to {MOST_BITS}, got '
        f'{self.coefficient_bits}'
      )
    if self.patch < 1:
      raise ValueError(f'patch must be at least 1, got {self.patch}')

  @property
  def _home(self) -> str:
    return 'params' if self.learning == 'gradient' else 'codebook'

  @property
  def bits_per_site(self) -> float:
    coefficient = self.coefficient_bits or 32
    bits = position_bits(self.K, self.S) + self.S * coefficient
    return bits / self.patch**2

  @property
  def patch_side(self) -> int:
    return self.patch

  def atoms(self) -> Array:
    rows = self.scale.value * self._atoms().T
    return rows.reshape(self.K, self.patch, self.patch, self.D)

  def indices(self, codes: SparseCode) -> Array:
    return codes.atoms

  def __call__(self, z: Array, train: bool, mask: Array | None = None):
    if not train:
      codes = self.encode(z)
      quantized = self.decode(codes).astype(z.dtype)
      return self._latent(z, quantized, codes, mask)
    signals, atoms = self._signals(z), self._atoms()
    code, path = self._pursue(*lax.stop_gradient((signals, atoms)))
    held = _sorted(code)
    bins, rounded = self._round(held)
    quantized = self._decode_signals(z, rounded, atoms)
    latent = self._latent(z, quantized, self._store(z, held, bins), mask)
    if self.progressive:
      latent.losses.update(self._progressive_losses(z, code, path, mask))
    if self.gradient == 'refit':
      exact = coding.with_fit_gradient(held, signals, atoms).coefficients
      passed = rounded.coefficients + (exact - held.coefficients)
      rounded = rounded._replace(coefficients=passed)
      quantized = self._decode_signals(z, rounded, atoms)
    else:
      quantized = straight_through(z, quantized)
    if self.tracks(train):  # last, since it changes dictionary and scales
      signals = lax.stop_gradient(signals)
      rounded = lax.stop_gradient(rounded)
      self._track(signals, held, bins, rounded, self._patch_mask(mask))
    return latent.replace(quantized=quantized)

  def encode(self, z: Array) -> SparseCode:
    """Codes z [..., H, W, D] as it would be stored.

    Returns:
      SparseCode of [..., H/p, W/p, S]: atoms int32, ascending, and of their
      coefficients the levels int32, or float32 where coefficient_bits is None.
    """
    code = coding.batch_omp(self._signals(z), self._atoms(), self.S)
    code = _sorted(code)
    return self._store(z, code, self._round(code)[0])

  def decode(self, codes: SparseCode) -> Array:
    """Turns stored codes back into quantized latents float32 [..., H, W, D]."""
    coefficients = codes.coefficients
    if self.coefficient_bits is not None:
      coefficients = self._values()[coefficients]
    flat = SparseCode(
      codes.atoms.reshape(-1, self.S), coefficients.reshape(-1, self.S)
    )
    signals = coding.reconstruct(flat, self._atoms())
    signals = signals.reshape(*codes.atoms.shape[:-1], -1)
    return from_patches(signals, self.patch)

  def initialize(self, z: Array) -> None:
    """Takes signals of a first batch as atoms, and fits the levels to it."""
    signals = self._signals(z)
    picked = coding.pick_signals(self.make_rng('bottleneck'), signals, self.K)
    atoms = coding.normalize_atoms(picked.T)
    self.put_variable(self._home, 'dictionary', atoms)
    code = coding.batch_omp(signals, atoms, self.S)
    self.scale.value = _size(code.coefficients)
    if self.coefficient_bits is not None:
      multiples = code.coefficients / self.scale.value
      self.levels.value = self._spread(multiples)

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

  def _pursue(self, signals, atoms) -> tuple[SparseCode, Array | None]:
    """Codes signals; if `progressive`, with the coefficients of every step."""
    if not self.progressive:
      return coding.batch_omp(signals, atoms, self.S), None
    chosen, path = coding.batch_omp_path(signals, atoms, self.S)
    return SparseCode(chosen, path[:, -1]), path

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

  def _spread(self, coefficients: Array) -> Levels:
    return spread_levels(coefficients, 2**self.coefficient_bits)

  def _round(self, code: SparseCode) -> tuple[Array, SparseCode]:
    """Returns what is stored of the coefficients, and the code as decoded."""
    if self.coefficient_bits is None:
      return code.coefficients, code
    values = self._values()
    bins = nearest_level(code.coefficients, values)
    return bins, code._replace(coefficients=values[bins])

  def _values(self) -> Array:
    """What the levels of coefficients stand for: [2^b], ascending."""
    return self.scale.value * self.levels.value.values

  def _store(self, z: Array, code: SparseCode, bins: Array) -> SparseCode:
    return SparseCode(self._as_map(z, code.atoms), self._as_map(z, bins))

  def _patch_mask(self, mask: Array | None) -> Array | None:
    """Says which signals count, [N]: those of which every site does."""
    if mask is None:
      return None
    return jnp.all(to_patches(mask[..., None], self.patch), axis=-1).reshape(-1)

  def _track(self, signals, code, bins, rounded, mask) -> None:
    """Updates the statistics and, in 'online' learning, the dictionary."""
    counted = jnp.ones(len(signals)) if mask is None else mask * 1.0
    use, _ = use_stats(code.atoms, self.K, mask)
    self.use.value += (1 - self.decay) * (use - self.use.value)
    weights = jnp.broadcast_to(counted[:, None], code.coefficients.shape)
    if self.coefficient_bits is not None:
      self.levels.value = update_levels(
        self.levels.value,
        code.coefficients / self.scale.value,
        bins,
        weights,
        self.decay,
      )
    size = _size(code.coefficients, weights)
    self.scale.value += (1 - SCALE_DECAY) * (size - self.scale.value)
    if self.learning == 'online':
      coefficients = rounded.coefficients * counted[:, None]
      rounded = rounded._replace(coefficients=coefficients)
      self.statistics.value = coding.update_statistics(
        self.statistics.value, signals, rounded, self.forgetting
      )
      atoms = coding.update_dictionary(self._atoms(), self.statistics.value)
      self.put_variable('codebook', 'dictionary', atoms)

  def _progressive_losses(self, z, code, path, mask) -> dict[str, Array]:
    """Averages the losses over the prefixes, as RQ-VAE does over depths."""
    atoms, each = self._atoms(), []
    for s in range(1, self.S + 1):
      prefix = SparseCode(code.atoms[:, :s], path[:, s - 1, :s])
      _, prefix = self._round(prefix)
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


def _sorted(code: SparseCode) -> SparseCode:
  """Puts the atoms [N, S] in ascending order: a set is what is stored."""
  order = jnp.argsort(code.atoms, axis=1)
  return SparseCode(*(jnp.take_along_axis(x, order, axis=1) for x in code))


def _size(coefficients: Array, weights: Array | float = 1.0) -> Array:
  """The root of the mean square, and above zero."""
  share = jnp.maximum(jnp.mean(weights), 1e-30)
  squares = jnp.mean(weights * coefficients**2) / share
  return jnp.maximum(jnp.sqrt(squares), 1e-12)
