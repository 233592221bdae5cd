"""Vector quantization.

A. van den Oord, O. Vinyals and K. Kavukcuoglu, "Neural discrete
representation learning", NeurIPS 2017.
"""

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Bottleneck,
  Latent,
  fixed_length_bits,
  relative_error,
  straight_through,
  use_stats,
)
from lasers_jax.coding import CodebookStatistics

LEARNING = ('ema', 'loss')


class VQ(Bottleneck):
  """Codes each site with the nearest of K codes (VQ-VAE section 3.2).

  Losses: `commitment`, mean |z - sg(q)|² (equation 3, third term, without its
  weight), and with learning 'loss' also `codebook`, mean |sg(z) - q|².

  Attributes:
    learning: 'ema', K-means by moving sums (appendix A.1), or 'loss'.
    decay: of the moving sums and of the use of codes.
  """

  learning: str = 'ema'
  decay: float = 0.99

  def setup(self):
    self.check()
    shape = (self.K, self.D)
    self.declare(self._home, 'codes', _unit_normal, shape)
    if self.learning == 'ema':
      # Their counts are `use`.
      self.sums = self.variable('codebook', 'sums', jnp.zeros, shape)
    self.use = self.variable('codebook', 'use', jnp.ones, (self.K,))

  def check(self) -> None:
    if self.learning not in LEARNING:
      raise ValueError(f'learning must be one of {LEARNING}: {self.learning!r}')
    if self.K < 2:
      raise ValueError(f'K must be at least 2, got K = {self.K}')

  @property
  def _home(self) -> str:
    return 'params' if self.learning == 'loss' else 'codebook'

  @property
  def bits_per_site(self) -> float:
    return fixed_length_bits(self.K)

  def atoms(self) -> Array:
    return self._codes()[:, None, None]

  def __call__(self, z: Array, train: bool) -> Latent:
    codes = self.encode(lax.stop_gradient(z))
    quantized = self.decode(codes).astype(z.dtype)
    losses = {'commitment': jnp.mean((lax.stop_gradient(quantized) - z) ** 2)}
    if self.learning == 'loss':
      losses['codebook'] = jnp.mean((quantized - lax.stop_gradient(z)) ** 2)
    _, stats = use_stats(codes, self.K)
    stats['relative_error'] = relative_error(z, quantized)
    if self.tracks(train):
      self._track(lax.stop_gradient(self._signals(z)), codes.reshape(-1))
    if train:
      quantized = straight_through(z, quantized)
    return Latent(quantized, codes, losses, stats)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [...], in [0, K)."""
    indices = coding.nearest_code(self._signals(z), self._codes())
    return indices.reshape(z.shape[:-1])

  def decode(self, codes: Array) -> Array:
    """Looks up codes [...]: float32 [..., D]."""
    return self._codes()[codes]

  def initialize(self, z: Array) -> None:
    """Takes signals of a first batch as codes."""
    key = self.make_rng('bottleneck')
    self._set_codes(coding.pick_signals(key, self._signals(z), self.K))

  def revive(self, z: Array) -> None:
    """Replaces dead codes by badly coded signals."""
    signals, codes = self._signals(z), self._codes()
    errors = signals - codes[coding.nearest_code(signals, codes)]
    revival = coding.choose_revivals(
      self.make_rng('bottleneck'),
      self.use.value,
      jnp.sum(errors**2, axis=1),
      self.revive_below,
      self.revive_limit,
    )
    which, dead = revival.which, revival.dead
    new = jnp.where(dead[:, None], signals[revival.rows], codes[which])
    use = jnp.where(dead, 1.0, self.use.value[which])
    self.use.value = self.use.value.at[which].set(use)
    self._set_codes(codes.at[which].set(new))

  def _signals(self, z: Array) -> Array:
    return z.reshape(-1, self.D).astype(jnp.float32)

  def _codes(self) -> Array:
    return self.get_variable(self._home, 'codes')

  def _set_codes(self, codes: Array) -> None:
    self.put_variable(self._home, 'codes', codes)
    if self.learning == 'ema':
      # The sums must agree, or the next step undoes the change.
      self.sums.value = codes * self.use.value[:, None]

  def _track(self, signals: Array, indices: Array) -> None:
    """Updates the use of codes and, in 'ema' learning, the codes."""
    if self.learning == 'loss':
      use, _ = use_stats(indices, self.K)
      self.use.value += (1 - self.decay) * (use - self.use.value)
      return
    statistics = CodebookStatistics(self.use.value, self.sums.value)
    statistics, codes = coding.update_codebook(
      statistics, signals, indices, self.decay
    )
    self.use.value, self.sums.value = statistics
    self.put_variable('codebook', 'codes', codes)


def _unit_normal(key: Array, shape: tuple[int, int]) -> Array:
  return coding.random_dictionary(key, shape[::-1]).T
