"""Sparse codes over a learned dictionary.

X. Li and A. D. Sarwate, "LASERS: latent space encoding for representations
with sparsity for generative modeling", arXiv 2409.11184. Unlike the released
code, a signal is one site of one image, never a mixture of several; the atoms
of a site are stored as a set; coefficients are stored as integers, in training
too; and the mean of all signals is subtracted before coding.
"""

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
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
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.bottlenecks.coefficients import Coefficients
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.parts import Parts, strongest_first
from lasers_jax.bottlenecks.prefixes import draw_prefixes
from lasers_jax.bottlenecks.rates import Asked, Fields
from lasers_jax.coding import SparseCode
from lasers_jax.coding.positions import largest_n, position_bits
from lasers_jax.core.ranges import Count, Fraction, Range
from lasers_jax.errors import InputError

BITS = {'omp': (1, 12), 'rounded': (0, 4)}
MOST_ATOMS = 2048  # of a dictionary that is solved for


class _Pursued(NamedTuple):
  """A code of signals, in the order of the pursuit until it is sorted."""

  atoms: Array  # int32 [N, S]
  coefficients: Array  # float32 [N, S], exact
  stored: Array  # [N, S], what is stored of the coefficients
  path: Array | None = None  # [N, S, S], of `batch_omp_path`


class Lasers(Codebook):
  """Codes each site with S of K atoms (LASERS section 3: the DL bottleneck).

  Losses: `dictionary`, mean |sg(z) - q|², which reaches the dictionary alone,
  and `commitment`, mean |z - sg(q)|², which reaches the encoder alone.

  Attributes:
    S: atoms used for a signal, at most K.
    learning: how the dictionary learns. 'gradient': a parameter, moved by the
      dictionary loss; 'online': by Mairal et al. 2009 from the running
      statistics of codes and signals, in the step; 'fixed': not at all.
    coefficient_bits: bits b of a stored coefficient, which is one of 2^b
      learned multiples, the same for all atoms, of the usual size of the
      coefficients of its atom; None stores float32, and counts 32.
    pursuit: 'omp' fits all coefficients, and then rounds them; 'rounded' rounds
      each as it is found, so that later atoms make up for it: better with few
      bits a coefficient, of which it takes 0 (one level an atom) to 4.
    progressive: the losses are means over the fits with the first 1, 2, ... S
      atoms, so that a model serves every S up to its own.
    sparsity_dropout: fraction of the images of which, in training, the decoder
      sees only the first 1 to S atoms, a random number, so that it learns to
      decode smaller S (as N. Zeghidour et al., "SoundStream", arXiv 2107.03312,
      section III-C, drop stages of a residual quantizer).
    forgetting: of the online statistics, per step.
    decay: of the moving averages of use and of the levels.
  """

  CHOICES: ClassVar = {
    'learning': ('gradient', 'online', 'fixed'),
    'pursuit': ('omp', 'rounded'),
  }
  loss_weights: ClassVar = {'dictionary': 1.0, 'commitment': 0.25}
  adjustable = ('S', 'coefficient_bits', 'pursuit')
  counted_by = 'S'
  held = True

  S: Count = 5
  learning: str = 'gradient'
  coefficient_bits: Annotated[int, Range(0, 12)] | None = 8
  pursuit: str = 'omp'
  progressive: bool = False
  sparsity_dropout: Fraction = 0.0
  forgetting: Fraction = 0.98

  def setup(self):
    self.check()
    shape = (self.D, self.K)
    self.declare(self._home, 'dictionary', coding.random_dictionary, shape)
    if self.learning == 'online':
      self.statistics = self.variable(
        'codebook', 'statistics', coding.init_statistics, *shape
      )
    ones, zeros = (jnp.ones, (self.K,), 'f4'), (jnp.zeros, shape[:1], 'f4')
    self.use = self.variable('codebook', 'use', *ones)
    self.mean = self.variable('codebook', 'mean', *zeros)
    self.coefficients = Coefficients(self.K, self.coefficient_bits, self.decay)

  def check(self) -> None:
    super().check()
    if self.S > self.K:
      raise ValueError(f'S must be from 1 to K = {self.K}, got S = {self.S}')
    low, high = BITS[self.pursuit]
    if self.coefficient_bits is None:
      if self.pursuit == 'rounded':
        raise ValueError("pursuit='rounded' needs coefficient_bits")
    elif not low <= self.coefficient_bits <= high:
      raise ValueError(
        f'coefficient_bits must be from {low} to {high} with '
        f'pursuit={self.pursuit!r}, got {self.coefficient_bits}'
      )

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    """Returns fields with few atoms of at most 2048, at 2 or 4 levels.

    On CIFAR-10, at 2 bits a pixel, 2 bits a coefficient were better than 1, 0,
    or the 6 and more that rounding after the pursuit requires; with one atom a
    site, 1 bit, its sign, was better than none.
    """
    for s in range(1, asked.d + 1):
      bits = 1 if s == 1 else 2
      k = largest_n(asked.bits - s * bits, s, MOST_ATOMS)
      if k >= 2 * s:
        return {'K': k, 'S': s, 'coefficient_bits': bits, 'pursuit': 'rounded'}
    raise ValueError(
      f'{asked.bits} bits a site are not a few atoms with a bit or two each'
    )

  @property
  def _home(self) -> str:
    return 'params' if self.learning == 'gradient' else 'codebook'

  @property
  def bits_per_site(self) -> float:
    each = 32 if self.coefficient_bits is None else self.coefficient_bits
    return position_bits(self.K, self.S) + self.S * each

  def atoms(self) -> Array:
    rows = self.coefficients.usual()[:, None] * self._atoms().T
    rows += self.mean.value[None]
    return rows[:, None, None]

  def indices(self, codes: SparseCode) -> Array:
    return codes.atoms

  def __call__(self, z: Array, train: bool, mask: Array | None = None):
    if not train:
      codes = self.encode(z)
      quantized = self.decode(codes).astype(z.dtype)
      return self._latent(z, quantized, codes, mask)
    signals, atoms = self._signals(z), self._atoms()
    pursued = self._pursue(*lax.stop_gradient((signals, atoms)))
    code = _sorted(pursued)
    rounded = self._read(code.atoms, code.stored)
    quantized = self._decode_signals(z, rounded, atoms)
    latent = self._latent(z, quantized, self._store(z, code), mask)
    if self.progressive:
      latent.losses.update(self._progressive_losses(z, pursued, mask))
    if self.sparsity_dropout:
      prefix = self._draw_prefixes(z, pursued)
      quantized = self._decode_signals(z, prefix, atoms)
    quantized = straight_through(z, quantized)
    if self.tracks(train):  # last, since it changes what the code depends on
      signals = lax.stop_gradient(signals)
      self._track(signals, code, rounded, _flat(mask))
    return latent.replace(quantized=quantized)

  def encode(self, z: Array) -> SparseCode:
    """Codes z [..., H, W, D] as it is stored.

    Returns:
      SparseCode of [..., H, W, S]: atoms int32, ascending, and of their
      coefficients the levels int32, or float32 where coefficient_bits is None.
    """
    signals = self._signals(z)
    code = self._pursue(signals, self._atoms())
    return self._store(z, _sorted(code))

  def pursue(self, z: Array) -> SparseCode:
    """Codes z as `decode` reads it, in the order of the pursuit: [N, S]."""
    code = self._pursue(self._signals(z), self._atoms())
    return self._read(code.atoms, code.stored)

  def multiples(self, z: Array) -> Array:
    """Returns the numbers that coding z rounds to levels: float32 [N, S].

    They are coefficients, in units of the usual size of those of their atoms.
    """
    code = self._pursue(self._signals(z), self._atoms())
    return code.coefficients / self.coefficients.usual()[code.atoms]

  def decode(self, codes: SparseCode) -> Array:
    """Turns stored codes back into quantized latents float32 [..., H, W, D]."""
    flat = SparseCode(*(x.reshape(-1, self.S) for x in codes))
    signals = self._reconstruct(self._read(*flat), self._atoms())
    return signals.reshape(*codes.atoms.shape[:-1], -1)

  def parts(self, codes: SparseCode) -> Parts:
    code, rows = self._read(*codes), self._atoms().T
    return strongest_first('atom', *code, rows, self.mean.value)

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> SparseCode:
    if self.coefficient_bits is None:
      raise InputError(
        'coefficients are stored as float32: set bottleneck.coefficient_bits'
      )
    shape = self.S, self.K, 2**self.coefficient_bits
    found = coder.pairs(name, codes, self.grid(*sites), shape)
    return SparseCode._make(found)  # of NumPy arrays

  def energies(self, name: str = '') -> dict[str, Any]:
    return self.coefficients.energies(name)

  def initialize(self, z: Array) -> None:
    """Takes signals of a first batch as atoms, and fits the rest to it."""
    self.mean.value += jnp.mean(self._signals(z), axis=0)
    signals = self._signals(z)
    pick, draw = jax.random.split(self.make_rng('bottleneck'))
    picked = coding.pick_signals(pick, signals, self.K)
    atoms = coding.normalize_atoms(picked.T)
    self.put_variable(self._home, 'dictionary', atoms)
    fit = coding.batch_omp(signals, atoms, self.S).coefficients
    if self.pursuit == 'rounded':
      self.coefficients.fit_coarsely(draw, fit)
    else:
      self.coefficients.fit(fit)

  def revive(self, z: Array) -> None:
    """Replaces dead atoms and twins by residuals of badly coded signals."""
    if self.learning == 'fixed':
      return
    signals, atoms = self._signals(z), self._atoms()
    code = self._pursue(signals, atoms)
    code = self._read(code.atoms, code.stored)
    residuals = signals - coding.reconstruct(code, atoms)
    atoms, revived = coding.revive_atoms(
      self.make_rng('bottleneck'),
      atoms,
      self.use.value,
      residuals,
      self.revive_below,
      self.revive_limit,
      # One direction in two sizes is of use where levels are few.
      above=0.999 if self.pursuit == 'omp' else jnp.inf,
    )
    stored = self.get_variable(self._home, 'dictionary')
    stored = jnp.where(revived[None], atoms, stored)
    self.put_variable(self._home, 'dictionary', stored)
    self.use.value = jnp.where(revived, 1.0, self.use.value)
    self.coefficients.forget(revived)
    if self.learning == 'online':
      rest = coding.forget_atoms(self.statistics.value, revived)
      self.statistics.value = rest

  def _signals(self, z: Array) -> Array:
    """Returns the sites [N, D] of z [..., H, W, D], less their mean."""
    return z.reshape(-1, self.D).astype(jnp.float32) - self.mean.value[None]

  def _pursue(self, signals: Array, atoms: Array) -> _Pursued:
    """Codes signals, and finds what is stored of the coefficients."""
    if self.pursuit == 'rounded':
      sizes, levels = self.coefficients.usual(), self.coefficients.multiples()
      code = coding.rounded_pursuit(signals, atoms, sizes, levels, self.S)
      return _Pursued(code.atoms, code.coefficients, code.bins)
    if self.progressive or self.sparsity_dropout:
      chosen, path = coding.batch_omp_path(signals, atoms, self.S)
      fitted = path[:, -1]
    else:
      code, path = coding.batch_omp(signals, atoms, self.S), None
      chosen, fitted = code.atoms, code.coefficients
    stored = self.coefficients.store(chosen, fitted)
    return _Pursued(chosen, fitted, stored, path)

  def _reconstruct(self, code: SparseCode, atoms: Array) -> Array:
    return self.mean.value[None] + coding.reconstruct(code, atoms)

  def _decode_signals(self, z: Array, code: SparseCode, atoms: Array) -> Array:
    return self._as_map(z, self._reconstruct(code, atoms)).astype(z.dtype)

  def _as_map(self, z: Array, rows: Array) -> Array:
    """Gives rows [N, ...] the dimensions [..., H, W, ...] of z's sites."""
    return rows.reshape(*z.shape[:-1], -1)

  def _atoms(self) -> Array:
    """The dictionary, normalized: averaged weights are not."""
    return coding.normalize_atoms(self.get_variable(self._home, 'dictionary'))

  def _read(self, atoms: Array, stored: Array) -> SparseCode:
    return SparseCode(atoms, self.coefficients.read(atoms, stored))

  def _store(self, z: Array, code: _Pursued) -> SparseCode:
    return SparseCode(self._as_map(z, code.atoms), self._as_map(z, code.stored))

  def _track(self, signals, code, rounded, mask) -> None:
    """Updates the statistics and, in 'online' learning, the dictionary."""
    counted = (True if mask is None else mask) * jnp.ones_like(signals[:, 0])
    use, _ = use_stats(code.atoms, self.K, mask)
    self.use.value += (1 - self.decay) * (use - self.use.value)
    weights = jnp.broadcast_to(counted[:, None], code.coefficients.shape)
    self.coefficients.track(code.atoms, code.coefficients, code.stored, weights)
    if self.learning == 'online':
      coefficients = rounded.coefficients * counted[:, None]
      rounded = rounded._replace(coefficients=coefficients)
      self.statistics.value = coding.update_statistics(
        self.statistics.value, signals, rounded, self.forgetting
      )
      atoms = coding.update_dictionary(self._atoms(), self.statistics.value)
      self.put_variable('codebook', 'dictionary', atoms)
    change = jnp.sum(counted[:, None] * signals, axis=0)
    change /= jnp.maximum(jnp.sum(counted), 1)
    self.mean.value += (1 - self.decay) * change

  def _draw_prefixes(self, z: Array, code: _Pursued) -> SparseCode:
    """Cuts the codes of each image to as many atoms as a draw says."""
    key = self.make_rng('bottleneck')
    kept = draw_prefixes(key, z.shape[:-3], self.S, self.sparsity_dropout)
    sites = z.shape[-3] * z.shape[-2]
    kept = jnp.repeat(kept.ravel(), sites)[:, None]
    stored = code.stored
    if code.path is not None:
      fits = jnp.take_along_axis(code.path, kept[:, :, None] - 1, axis=1)
      stored = self.coefficients.store(code.atoms, fits[:, 0])
    read = self._read(code.atoms, stored)
    seen = jnp.arange(self.S)[None] < kept
    return read._replace(coefficients=jnp.where(seen, read.coefficients, 0))

  def _progressive_losses(self, z, code: _Pursued, mask) -> dict[str, Array]:
    """Averages the losses over the prefixes, as RQ-VAE does over depths."""
    atoms, each = self._atoms(), []
    for s in range(1, self.S + 1):
      chosen, stored = code.atoms[:, :s], code.stored[:, :s]
      if code.path is not None:
        stored = self.coefficients.store(chosen, code.path[:, s - 1, :s])
      prefix = self._read(chosen, stored)
      quantized = self._decode_signals(z, prefix, atoms)
      each.append(codebook_losses(z, quantized, mask, 'dictionary'))
    return {
      name: jnp.asarray(sum(x[name] for x in each) / self.S) for name in each[0]
    }

  def _latent(self, z: Array, quantized: Array, codes: SparseCode, mask):
    atoms = codes.atoms.reshape(-1, self.S)
    _, stats = use_stats(atoms, self.K, _flat(mask))
    stats['relative_error'] = relative_error(z, quantized, mask)
    losses = codebook_losses(z, quantized, mask, 'dictionary')
    return Latent(quantized, codes, losses, stats)


def _flat(mask: Array | None) -> Array | None:
  return None if mask is None else mask.reshape(-1)


def _sorted(code: _Pursued) -> _Pursued:
  """Puts the atoms in ascending order: a set is what is stored."""
  order = jnp.argsort(code.atoms, axis=1)
  arrays = (jnp.take_along_axis(x, order, axis=1) for x in code[:3])
  return _Pursued(*arrays)
