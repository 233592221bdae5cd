"""Vector quantization as a classification in hyperbolic space.

N. Goswami, Y. Mukuta and T. Harada, "HyperVQ: MLR-based vector quantization in
hyperbolic space", arXiv 2403.13015. No code of it was released: the logits are
those of Shimizu et al. 2021, which it builds on; codes start from data, and
those that evaluation does not choose come back to data.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Codebook,
  Latent,
  LookUp,
  relative_error,
  use_stats,
)
from lasers_jax.coding.hyperbolic import mlr_logits, most_likely_class
from lasers_jax.coding.index_propagation import pass_through
from lasers_jax.coding.search import largest
from lasers_jax.core.ranges import Amount, Count, Decay, Positive, Whole


class HyperVQ(LookUp, Codebook):
  """Codes each site with the class that a hyperbolic classifier gives it.

  Class k has a direction z_k and an offset r_k, and stands for the point of
  its hyperplane nearest to zero, exp0(r_k ẑ_k). The decoder receives the
  logarithm of that point, r_k ẑ_k. A code is not the one nearest to z. There
  are no losses: all gradients come from the decoder.

  Evaluation takes the class of the largest logit. Training draws the class, by
  the straight-through Gumbel softmax, from the key stream `bottleneck`; it
  returns and decodes the codes that were drawn. The gradient reaches z, all z_k
  and all r_k through the softmax, and those drawn through r_k ẑ_k.

  Attributes:
    K: classes.
    curvature: c of the ball, at least 0; 0 is flat space.
    temperature: of the Gumbel softmax, positive.
    decay, revive_every, revive_below, revive_limit: as of `Codebook`; classes
      die faster than the codes of others, and are revived more often.
  """

  curvature: Amount = 1.0
  temperature: Positive = 1.0
  decay: Decay = 0.97
  revive_every: Whole = 20
  revive_below: Decay = 0.1
  revive_limit: Count = 64

  def setup(self):
    self.check()
    shape = (self.K, self.D)
    self.directions = self.param('directions', coding.random_codes, shape)
    self.offsets = self.param(
      'offsets', lambda _: jnp.ones(self.K, jnp.float32)
    )
    # Of the classes of largest logit, not of those drawn.
    self.use = self.variable(
      'codebook', 'use', jnp.ones, (self.K,), jnp.float32
    )

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    if train:
      logits = self._logits(z)
      quantized, codes = self._draw(z, logits)
      if self.tracks(train):
        use, _ = use_stats(largest(logits).reshape(codes.shape), self.K, mask)
        self.use.value += (1 - self.decay) * (use - self.use.value)
    else:
      codes = self.encode(z)
      quantized = self.decode(codes)
    _, stats = use_stats(codes, self.K, mask)
    stats['relative_error'] = relative_error(
      z.astype(jnp.float32), quantized, mask
    )
    return Latent(quantized.astype(z.dtype), codes, {}, stats)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [...], in [0, K)."""
    classes = most_likely_class(
      self._signals(z), self.directions, self.offsets, self.curvature
    )
    return classes.reshape(z.shape[:-1])

  def initialize(self, z: Array) -> None:
    """Takes directions from a first batch, and its mean length for all offsets.

    With equal offsets each class wins at its own signal; with the lengths of
    the signals, those with small offsets would win everywhere.
    """
    key, signals = self.make_rng('bottleneck'), self._signals(z)
    picked = coding.pick_signals(key, signals, self.K)
    length = jnp.sqrt(jnp.mean(jnp.sum(signals**2, axis=1)))
    units = coding.normalize_codes(picked)
    self.put_variable('params', 'directions', units)
    self.put_variable(
      'params', 'offsets', jnp.full(self.K, length, jnp.float32)
    )

  def revive(self, z: Array) -> None:
    """Turns dead classes towards signals, and lets them win there.

    A revived class takes length and offset from the class that has won its
    signal: with the direction of the signal itself its logit is no smaller.
    """
    signals = self._signals(z)
    revival = coding.choose_revivals(
      self.make_rng('bottleneck'),
      self.use.value,
      jnp.ones(len(signals), jnp.float32),
      self.revive_below,
      self.revive_limit,
    )
    which, dead = revival.which, revival.dead
    chosen = signals[revival.rows]
    winners = most_likely_class(
      chosen, self.directions, self.offsets, self.curvature
    )
    lengths = jnp.linalg.norm(self.directions[winners], axis=1, keepdims=True)
    directions = lengths * coding.normalize_codes(chosen)

    def replaced(rows: Array, new: Array) -> Array:
      at = dead.reshape(dead.shape + (1,) * (rows.ndim - 1))
      return rows.at[which].set(jnp.where(at, new, rows[which]))

    offsets = replaced(self.offsets, self.offsets[winners])
    self.put_variable(
      'params', 'directions', replaced(self.directions, directions)
    )
    self.put_variable('params', 'offsets', offsets)
    self.use.value = replaced(self.use.value, jnp.ones(dead.shape, jnp.float32))

  def _codes(self) -> Array:
    """What the classes stand for: r_k ẑ_k, [K, D]."""
    units = coding.normalize_codes(self.directions)
    return self.offsets[:, None] * units

  def _logits(self, z: Array) -> Array:
    return mlr_logits(
      self._signals(z), self.directions, self.offsets, self.curvature
    )

  def _draw(self, z: Array, logits: Array) -> tuple[Array, Array]:
    """Draws classes of logits [N, K]: quantized [..., D], and codes [...]."""
    noise = jax.random.gumbel(
      self.make_rng('bottleneck'), logits.shape, jnp.float32
    )
    noisy = (logits + noise) / self.temperature
    table, indices = self._codes(), largest(noisy)
    soft = jax.nn.softmax(noisy) @ lax.stop_gradient(table)
    quantized = pass_through(soft, table[indices])
    return quantized.reshape(z.shape), indices.reshape(z.shape[:-1])
