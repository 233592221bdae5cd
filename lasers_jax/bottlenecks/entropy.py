"""Integers whose bits are a loss.

J. Ballé, V. Laparra and E. P. Simoncelli, "End-to-end optimized image
compression", ICLR 2017; the decoder sees integers in training, as in D. Minnen
and S. Singh, "Channel-wise autoregressive entropy models for learned image
compression", ICIP 2020 (section 3.2). Unlike there, the prior of a channel is
one logistic distribution, which follows the moments of the latents: it is
right from the first step on. Files are written by the tables of codec.py.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.bottlenecks.base import (
  Latent,
  like_sites,
  relative_error,
  site_mean,
  use_stats,
)
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.integers import Stepped
from lasers_jax.coding.priced import geometric_bits, priced_integers
from lasers_jax.core.ranges import Decay

_LEAST = 0.05  # of a step: no scale is below
_SCALE = 1 / (2 * math.log(2))  # of the mean absolute deviation


class Entropy(Stepped):
  """Rounds every channel to multiples of one step, with their bits as a loss.

  Losses: `rate`, the bits of a site: -log2 of the probability of the interval
  from y - step/2 to y + step/2, summed over channels. The distribution of a
  channel is logistic, with its mean and mean absolute deviation, averaged over
  training. In training y = z + U(-step/2, step/2) (equations 6 to 10 of the
  paper), in evaluation it is z rounded. The weight is that of `pixel` over
  255² f² times the λ of papers that weigh bits per pixel against λ times the
  error of images in [0, 255].

  With a `price`, the bits are those of the geometric law of the same mean
  absolute deviation about the mean.

  Where each image has its own step, its rate is weighted by the square of the
  factor of its step, as its error grows.

  Attributes:
    decay: of the moving averages.
  """

  loss_weights: ClassVar = {'rate': 1e-3}

  decay: Decay = 0.9

  def setup(self):
    self.check()
    self.location = self.variable(
      'codebook', 'location', jnp.zeros, (self.D,), jnp.float32
    )
    self.scale = self.variable(
      'codebook', 'scale', jnp.ones, (self.D,), jnp.float32
    )

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    exact = z.astype(jnp.float32)
    once = jnp.ones((1,) * z.ndim, jnp.float32)
    times = self._draw_times(z) if train else once
    codes = self._code(lax.stop_gradient(exact), times)
    quantized = times * self.decode(codes)
    bits = self._bits(self._seen(exact, quantized, times, train), times)
    losses = {'rate': site_mean(times[..., 0] ** 2 * bits, mask)}
    _, stats = use_stats(self.indices(codes), self.symbols, mask)
    stats['bits'] = site_mean(bits, mask)
    stats['relative_error'] = relative_error(exact, quantized, mask)
    if self.tracks(train):
      self._follow(lax.stop_gradient(exact), mask, 1 - self.decay)
    if train:
      # No small change beyond the last integer changes the code.
      last = (self.limit + 0.5) * self.step * times
      quantized = straight_through(jnp.clip(exact, -last, last), quantized)
    quantized = quantized.astype(z.dtype)
    return Latent(quantized, codes, losses, stats)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [..., D], in [-limit, limit]."""
    return self._code(z.astype(jnp.float32), jnp.ones((1,) * z.ndim, 'f4'))

  def initialize(self, z: Array) -> None:
    """Takes the moments of a first batch."""
    self._follow(z.astype(jnp.float32), None, 1.0)

  def _code(self, z: Array, times: Array) -> Array:
    if not self.price:
      return super().encode(z / times)
    step = self.step * times
    deviation = like_sites(self.scale.value, z) / (_SCALE * step)
    _, unit = geometric_bits(jnp.maximum(deviation, _LEAST))
    middle = jnp.round(like_sites(self.location.value, z) / step)
    off = priced_integers(z / step - middle, self.price * unit, 2 * self.limit)
    codes = middle.astype(jnp.int32) + off
    return jnp.clip(codes, -self.limit, self.limit)

  def _follow(self, z: Array, mask: Array | None, rate: float) -> None:
    """Moves the prior towards the moments of z."""
    counted = jnp.ones(z.shape[:-1], jnp.float32) if mask is None else mask
    rows, weights = z.reshape(-1, self.D), counted.reshape(-1, 1)
    total = jnp.maximum(jnp.sum(weights), 1)
    mean = jnp.sum(weights * rows, axis=0) / total
    deviation = jnp.sum(weights * jnp.abs(rows - mean[None]), axis=0) / total
    self.location.value += rate * (mean - self.location.value)
    self.scale.value += rate * (_SCALE * deviation - self.scale.value)

  def _seen(self, z: Array, quantized: Array, times: Array, train: bool):
    """What the prior is asked about: in training, noise stands for rounding."""
    if not train:
      return quantized
    key = self.make_rng('bottleneck')
    noise = jax.random.uniform(key, z.shape, jnp.float32) - 0.5
    return z + self.step * times * noise

  def _bits(self, y: Array, times: Array) -> Array:
    """What sites y [..., D] cost: [...]."""
    step = self.step * times
    scale = jnp.maximum(like_sites(self.scale.value, y), _LEAST * step)
    half = step / (2 * scale)
    centred = (y - like_sites(self.location.value, y)) / scale
    # σ(a) - σ(b) = σ(a) σ(-b) (1 - e^(b - a)), which never is 0.
    log_p = (
      jax.nn.log_sigmoid(centred + half)
      + jax.nn.log_sigmoid(half - centred)
      + jnp.log(-jnp.expm1(-2 * half))
    )
    return -jnp.sum(log_p, axis=-1) / math.log(2)
