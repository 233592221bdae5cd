"""Latents of plain numbers: the plain and the variational autoencoder.

D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014; with
the clamp and the small weight of R. Rombach et al., "High-resolution image
synthesis with latent diffusion models", CVPR 2022. Unlike there, the mean
starts as z itself and the deviation at e⁻³, so that a run begins as a plain
autoencoder, and the loss is a mean over sites. `value_bits` is not of the
papers: it shows the bits that the numbers cost.
"""

from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lasers_jax.bottlenecks.base import (
  Bottleneck,
  Latent,
  like_sites,
  relative_error,
  site_mean,
  use_stats,
)
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.parts import Parts, channels
from lasers_jax.bottlenecks.rates import Asked, Fields, channel_bits
from lasers_jax.coding.scalar import (
  Levels,
  nearest_level,
  spread_levels,
  update_levels,
)
from lasers_jax.coding.search import linear
from lasers_jax.core.ranges import Decay, Range

# Of the moments, per step: numbers that nothing holds grow fast at first.
SCALE_DECAY = 0.9
LOWEST, HIGHEST = -30.0, 20.0  # log variances


class Numbers(Bottleneck):
  """Stores D numbers of each site: a base class.

  A subclass defines `numbers(z)`, the numbers to store: float32 [..., D].

  Attributes:
    value_bits: b of a stored number, which is one of 2^b learned levels, the
      same for all channels, in units of the deviation of its channel about its
      mean; None stores float32, and is continuous.
    decay: of the moving average that the levels are.
  """

  value_bits: Annotated[int, Range(1, 12)] | None = None
  decay: Decay = 0.99

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    return {'value_bits': channel_bits(asked, 1)}

  def setup(self):
    self.check()
    if self.value_bits is not None:
      self.centre = self.variable(
        'codebook', 'centre', jnp.zeros, (self.D,), jnp.float32
      )
      self.scale = self.variable(
        'codebook', 'scale', jnp.ones, (self.D,), jnp.float32
      )
      even = jnp.linspace(-2.0, 2.0, 1000, dtype=jnp.float32)
      self.levels = self.variable('codebook', 'levels', self._spread, even)

  @property
  def bits_per_site(self) -> float | None:
    return None if self.value_bits is None else self.D * self.value_bits

  @property
  def symbols(self) -> int:
    return 0 if self.value_bits is None else self.D * 2**self.value_bits

  def indices(self, codes: Array) -> Array:
    """Returns the indices of pairs of channel and level: int32 [..., D]."""
    starts = self._level_count * jnp.arange(self.D, dtype=jnp.int32)
    return codes + like_sites(starts, codes)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: the numbers float32 [..., D].

    With `value_bits`, their levels int32 [..., D].
    """
    return self._store(self.numbers(z))

  def decode(self, codes: Array) -> Array:
    if self.value_bits is None:
      return codes
    values = self.levels.value.values[codes]
    scale = like_sites(self.scale.value, codes)
    return like_sites(self.centre.value, codes) + scale * values

  def parts(self, codes: Array) -> Parts | None:
    if self.value_bits is None:
      return None
    centre, rows = self.centre.value, jnp.eye(self.D, dtype=jnp.float32)
    amounts = self.decode(codes) - like_sites(centre, codes)
    return channels('channel', amounts, rows, centre)

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> np.ndarray:
    if self.value_bits is None:
      return super().transfer(coder, sites, codes, name)
    found = coder.channels(name, codes, sites, self._level_count, self.D)
    return found.astype(np.int32)

  def initialize(self, z: Array) -> None:
    """Fits the levels to a first batch."""
    if self.value_bits is None:
      return
    numbers = self.numbers(z).reshape(-1, self.D)
    weights = jnp.ones(numbers.shape, jnp.float32)
    self.centre.value, self.scale.value = _moments(numbers, weights)
    self.levels.value = self._spread(self._standard(numbers))

  def _spread(self, x: Array) -> Levels:
    return spread_levels(x, self._level_count)

  @property
  def _level_count(self) -> int:
    assert self.value_bits is not None  # float32 has no levels
    return 2**self.value_bits

  def _standard(self, numbers: Array) -> Array:
    """Numbers [..., D] in units of the deviation of their channel."""
    centre = like_sites(self.centre.value, numbers)
    return (numbers - centre) / like_sites(self.scale.value, numbers)

  def _store(self, numbers: Array) -> Array:
    if self.value_bits is None:
      return numbers
    return nearest_level(self._standard(numbers), self.levels.value.values)

  def _decoded(self, numbers: Array, codes: Array) -> Array:
    """Decodes codes, with the gradient to the numbers they are of.

    None reaches those beyond the levels, which would only go on outwards.
    """
    if self.value_bits is None:
      return numbers
    standard, levels = self._standard(numbers), self.levels.value.values
    within = (levels[0] <= standard) & (standard <= levels[-1])
    held = jnp.where(within, numbers, lax.stop_gradient(numbers))
    return straight_through(held, self.decode(codes))

  def _stats(self, z, quantized, codes, mask) -> dict[str, Array]:
    stats = {'relative_error': relative_error(z, quantized, mask)}
    if self.value_bits is not None:
      stats.update(use_stats(self.indices(codes), self.symbols, mask)[1])
    return stats

  def _track(self, numbers, codes, train: bool, mask: Array | None) -> None:
    """Moves levels and moments towards those of a batch in training."""
    if self.value_bits is None or not self.tracks(train):
      return
    weights = jnp.ones(numbers.shape, jnp.float32)
    if mask is not None:
      weights *= mask[..., None]
    self.levels.value = update_levels(
      self.levels.value, self._standard(numbers), codes, weights, self.decay
    )
    rows, counted = (x.reshape(-1, self.D) for x in (numbers, weights))
    centre, scale = _moments(rows, counted)
    self.centre.value += (1 - SCALE_DECAY) * (centre - self.centre.value)
    self.scale.value += (1 - SCALE_DECAY) * (scale - self.scale.value)


class Identity(Numbers):
  """Passes z on unchanged: the baseline of all codes.

  With `value_bits`, training decodes the rounded numbers too; the gradient
  passes those within the levels unchanged, and the others not at all, as in
  I. Hubara et al., "Binarized neural networks", NIPS 2016. There are no losses.
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
    self._track(numbers, codes, train, mask)
    return Latent(quantized.astype(z.dtype), codes, {}, stats)


class KL(Numbers):
  """Draws each site from N(mean, variance), both linear in z (KL-VAE).

  Training decodes a draw, evaluation the mean; the code is the mean in both.
  With `value_bits`, evaluation decodes the rounded mean; the draw is not
  rounded.

  Losses: `kl`, the divergence of N(mean, variance) from N(0, I) in nats, a sum
  over D and a mean over sites.
  """

  loss_weights: ClassVar = {'kl': 1e-4}

  def setup(self):
    super().setup()
    identity = jnp.eye(self.D, dtype=jnp.float32)
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
      noise = jax.random.normal(
        self.make_rng('bottleneck'), mean.shape, jnp.float32
      )
      quantized = mean + jnp.exp(log_variance / 2) * noise
    else:
      quantized = self._decoded(mean, codes)
    stats = self._stats(z, quantized, codes, mask)
    self._track(mean, codes, train, mask)
    return Latent(quantized.astype(z.dtype), codes, losses, stats)


def _moments(rows: Array, weights: Array) -> tuple[Array, Array]:
  """Mean and deviation, above zero, of the columns of rows [N, D]: both [D]."""
  total = jnp.maximum(jnp.sum(weights, axis=0), 1e-30)
  mean = jnp.sum(weights * rows, axis=0) / total
  square = jnp.sum(weights * (rows - mean[None]) ** 2, axis=0) / total
  return mean, jnp.maximum(jnp.sqrt(square), 1e-12)


def _dense(key: Array, kernel: Array, bias: float) -> dict[str, Array]:
  del key  # nothing is drawn
  biases = jnp.full(kernel.shape[0], bias, jnp.float32)
  return {'kernel': kernel, 'bias': biases}


def _map(z: Array, weights: dict[str, Array]) -> Array:
  """Applies a dense map to each site: float32 [..., D]."""
  signals = z.reshape(-1, z.shape[-1]).astype(jnp.float32)
  rows = linear(signals, weights['kernel']) + weights['bias'][None]
  return rows.reshape(z.shape)
