"""Latents of plain numbers: the plain and the variational autoencoder.

D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014; with
the clamp and the small weight of R. Rombach et al., "High-resolution image
synthesis with latent diffusion models", CVPR 2022. Unlike there, the mean
starts as z itself and the deviation at e⁻³, so that a run begins as a plain
autoencoder, and the loss is a mean over sites. Rows with `bits` are not of the
papers: they show what the numbers cost as bits.
"""

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Bottleneck,
  Latent,
  relative_error,
  site_mean,
  use_stats,
)
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.coding.search import linear

LOWEST, HIGHEST = -30.0, 20.0  # log variances


class Numbers(Bottleneck):
  """Stores D numbers of each site.

  A subclass defines `numbers(z)`, what is to be stored of z: float32 [..., D].

  Attributes:
    bits: of a stored number, from 2 to 16, as an integer that is a share of the
      largest magnitude of its channel; None stores float32, and is continuous.
    decay: of the moving average of these magnitudes.
  """

  bits: int | None = None
  decay: float = 0.99

  def setup(self):
    self.check()
    if self.bits is not None:
      self.scales = self.variable('codebook', 'scales', jnp.ones, (self.D,))

  def check(self) -> None:
    if self.bits is not None and not 2 <= self.bits <= 16:
      raise ValueError(f'bits must be None or from 2 to 16, got {self.bits}')

  @property
  def bits_per_site(self) -> float | None:
    return None if self.bits is None else self.D * self.bits

  @property
  def symbols(self) -> int:
    return 0 if self.bits is None else self.D * (2**self.bits - 1)

  def indices(self, codes: Array) -> Array:
    """One of each channel and integer, where `bits` is set: int32 [..., D]."""
    values = 2**self.bits - 1
    starts = values * jnp.arange(self.D, dtype=jnp.int32) + values // 2
    return codes + starts.reshape((1,) * (codes.ndim - 1) + starts.shape)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: the numbers float32 [..., D], or int32 with `bits`."""
    return self._store(self.numbers(z))

  def decode(self, codes: Array) -> Array:
    if self.bits is None:
      return codes
    return coding.dequantize(codes, self._scales(), self.bits)

  def initialize(self, z: Array) -> None:
    """Fits the magnitudes to a first batch."""
    if self.bits is not None:
      self.scales.value = _largest_magnitudes(self.numbers(z))

  def _store(self, numbers: Array) -> Array:
    if self.bits is None:
      return numbers
    return coding.quantize(numbers, self._scales(), self.bits)

  def _decoded(self, numbers: Array, codes: Array) -> Array:
    """Is `decode(codes)`, with the gradient to the numbers they are of."""
    if self.bits is None:
      return numbers
    return straight_through(numbers, self.decode(codes))

  def _scales(self) -> Array:
    return jnp.maximum(self.scales.value, 1e-12)

  def _stats(self, z, quantized, codes, mask) -> dict[str, Array]:
    stats = {'relative_error': relative_error(z, quantized, mask)}
    if self.bits is not None:
      stats.update(use_stats(self.indices(codes), self.symbols, mask)[1])
    return stats

  def _track(self, numbers: Array, train: bool, mask: Array | None) -> None:
    """Moves the magnitudes towards those of a batch in training."""
    if self.bits is None or not self.tracks(train):
      return
    if mask is not None:
      numbers = jnp.where(mask[..., None], numbers, 0.0)
    change = _largest_magnitudes(numbers) - self.scales.value
    self.scales.value += (1 - self.decay) * change


class Identity(Numbers):
  """Passes z on as it is: what any code is to be compared with.

  With `bits`, training decodes the rounded numbers too, and the gradient
  passes them unchanged. There are no losses.
  """

  def numbers(self, z: Array) -> Array:
    return z.astype(jnp.float32)

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    numbers = self.numbers(z)
    codes = self._store(numbers)
    quantized = self._decoded(numbers, codes)
    stats = self._stats(numbers, quantized, codes, mask)
    self._track(numbers, train, mask)
    return Latent(quantized.astype(z.dtype), codes, {}, stats)


class KL(Numbers):
  """Draws each site from N(mean, variance), both linear in z (KL-VAE).

  Training decodes a draw, evaluation the mean; the code is the mean in both.
  With `bits`, evaluation decodes the rounded mean; the draw is not rounded.

  Losses: `kl`, the divergence of N(mean, variance) from N(0, I) in nats, a sum
  over D and a mean over sites.
  """

  def setup(self):
    super().setup()
    identity = jnp.eye(self.D)
    self.mean = self.param('mean', _dense, identity, 0.0)
    self.log_variance = self.param('log_variance', _dense, 0 * identity, -6.0)

  def numbers(self, z: Array) -> Array:
    return _map(z, self.mean)

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    mean = self.numbers(z)
    codes = self._store(mean)
    log_variance = jnp.clip(_map(z, self.log_variance), LOWEST, HIGHEST)
    twice = mean**2 + jnp.exp(log_variance) - 1 - log_variance
    losses = {'kl': site_mean(jnp.sum(twice, axis=-1) / 2, mask)}
    if train:
      noise = jax.random.normal(self.make_rng('bottleneck'), mean.shape)
      quantized = mean + jnp.exp(log_variance / 2) * noise
    else:
      quantized = self._decoded(mean, codes)
    stats = self._stats(z, quantized, codes, mask)
    self._track(mean, train, mask)
    return Latent(quantized.astype(z.dtype), codes, losses, stats)


def _largest_magnitudes(numbers: Array) -> Array:
  """The largest magnitude of each channel of [..., D]: [D]."""
  return jnp.max(jnp.abs(numbers), axis=tuple(range(numbers.ndim - 1)))


def _dense(key: Array, kernel: Array, bias: float) -> dict[str, Array]:
  del key  # nothing is drawn
  return {'kernel': kernel, 'bias': jnp.full(kernel.shape[0], bias)}


def _map(z: Array, weights: dict[str, Array]) -> Array:
  """Applies a dense map to each site: float32 [..., D]."""
  signals = z.reshape(-1, z.shape[-1]).astype(jnp.float32)
  rows = linear(signals, weights['kernel']) + weights['bias'][None]
  return rows.reshape(z.shape)
