"""Vector quantization.

A. van den Oord, O. Vinyals and K. Kavukcuoglu, "Neural discrete
representation learning", NeurIPS 2017. The options `affine`, `synchronized` and
learning 'alternated' are those of M. Huh et al., "Straightening out the
straight-through estimator", ICML 2023. Unlike in its released code, a revived
code is placed through the inverse of `affine`, and the commitment and the
codebook term are weighted by the trainer alone.
"""

from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax import coding
from lasers_jax.bottlenecks.base import (
  Codebook,
  Latent,
  LookUp,
  codebook_losses,
  relative_error,
  use_stats,
)
from lasers_jax.bottlenecks.gradients import GRADIENTS
from lasers_jax.coding import CodebookStatistics
from lasers_jax.coding.search import largest
from lasers_jax.core.ranges import Amount, Positive


class VQ(LookUp, Codebook):
  """Codes each site with the nearest of K codes (VQ-VAE section 3.2).

  Losses: `commitment`, mean |z - sg(q)|² (equation 3, third term, without its
  weight), and with learning 'loss' also `codebook`, mean |sg(z) - q|².

  Attributes:
    learning: 'ema', K-means by moving sums (appendix A.1); 'loss', by the
      codebook loss; 'alternated', by a step of gradient descent on it before
      the decoder, which receives the moved codes (Huh et al. section 4.3).
    distance: 'euclidean', or 'cosine': latents and codes have norm 1.
    start: codes begin as signals ('data') or as their clusters ('kmeans').
    assignment: in training; 'nearest', or 'sinkhorn', which spreads the signals
      of a batch evenly over the codes (OptVQ, arXiv 2412.15195). Evaluation
      takes the nearest code.
    gradient: of z, from the decoder; see gradients.py.
    affine: a of the codes (1 + a s) C + a b, s and b being learned for all; 0
      for C itself. Goes with learning 'loss'.
    synchronized: ν, the fraction of the decoder's gradient that also reaches
      the codes. Goes with learning 'loss'.
    rate: of the descent in 'alternated' learning.
  """

  CHOICES: ClassVar = {
    'learning': ('ema', 'loss', 'alternated'),
    'distance': ('euclidean', 'cosine'),
    'start': ('data', 'kmeans'),
    'assignment': ('nearest', 'sinkhorn'),
    'gradient': tuple(GRADIENTS),
  }

  loss_weights: ClassVar = {'commitment': 0.25}
  held = True

  learning: str = 'ema'
  distance: str = 'euclidean'
  start: str = 'data'
  assignment: str = 'nearest'
  gradient: str = 'straight_through'
  affine: Amount = 0.0
  synchronized: Amount = 0.0
  rate: Positive = 50.0

  def setup(self):
    self.check()
    shape = (self.K, self.D)
    self.declare(self._home, 'codes', coding.random_codes, shape)
    if self.learning == 'ema':
      # Their counts are `use`.
      self.sums = self.variable(
        'codebook', 'sums', jnp.zeros, shape, jnp.float32
      )
    if self.affine:
      zeros = lambda key, shape: jnp.zeros(shape, jnp.float32)  # noqa: E731
      self.stretch = self.param('stretch', zeros, (self.D,))
      self.shift = self.param('shift', zeros, (self.D,))
    # From zero: the first signals that choose a code decide where it is, and
    # one that is never chosen is seen to be dead at the first look.
    self.use = self.variable(
      'codebook', 'use', jnp.zeros, (self.K,), jnp.float32
    )

  def check(self) -> None:
    super().check()
    for field in ('affine', 'synchronized'):
      if getattr(self, field) and self.learning != 'loss':
        raise ValueError(f"{field} goes with learning='loss' only")

  @property
  def _home(self) -> str:
    return 'params' if self.learning == 'loss' else 'codebook'

  def __call__(self, z: Array, train: bool, mask: Array | None = None):
    signals, codes = self._signals(z), self._codes()
    held = lax.stop_gradient(signals)
    weights = None if mask is None else mask.reshape(-1).astype(jnp.float32)
    indices = self._assign(held, lax.stop_gradient(codes), weights, train)
    if train and self.learning == 'alternated':
      codes = self._descend(codes, held, indices, weights)
    z_signals = signals.reshape(z.shape)
    quantized = codes[indices].reshape(z.shape)
    losses = codebook_losses(z_signals, quantized, mask)
    if self.learning != 'loss':
      del losses['codebook']
    indices = indices.reshape(z.shape[:-1])
    _, stats = use_stats(indices, self.K, mask)
    stats['relative_error'] = relative_error(z_signals, quantized, mask)
    if self.tracks(train):
      self._track(held, indices.reshape(-1), weights, codes)
    if train:
      passed = GRADIENTS[self.gradient](z_signals, quantized)
      along = quantized - lax.stop_gradient(quantized)  # zero, but a path
      quantized = passed + self.synchronized * along
    return Latent(quantized.astype(z.dtype), indices, losses, stats)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [...], in [0, K)."""
    indices = coding.nearest_code(self._signals(z), self._codes())
    return indices.reshape(z.shape[:-1])

  def initialize(self, z: Array) -> None:
    """Takes signals of a first batch, or their clusters, as codes."""
    key, signals = self.make_rng('bottleneck'), self._signals(z)
    if self.start == 'kmeans':
      codes, use = coding.kmeans(key, signals, self.K)
      # What one batch is worth.
      self.use.value = (1 - self.decay) * use
    else:
      codes = coding.pick_signals(key, signals, self.K)
    self.put_variable(self._home, 'codes', self._as_stored(codes))
    if self.learning == 'ema':
      self.sums.value = codes * self.use.value[:, None]

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
    which, dead = revival.which, revival.dead[:, None]
    new = self._as_stored(signals[revival.rows])

    def replaced(rows: Array) -> Array:
      return rows.at[which].set(jnp.where(dead, new, rows[which]))

    stored = self.get_variable(self._home, 'codes')
    self.put_variable(self._home, 'codes', replaced(stored))
    use = jnp.where(revival.dead, 1.0, self.use.value[which])
    self.use.value = self.use.value.at[which].set(use)
    if self.learning == 'ema':
      # The sums must agree, or the next step undoes the change.
      self.sums.value = replaced(self.sums.value)

  def _signals(self, z: Array) -> Array:
    signals = super()._signals(z)
    if self.distance == 'cosine':
      return coding.normalize_codes(signals)
    return signals

  def _codes(self) -> Array:
    """The codes [K, D] as they are compared and decoded."""
    codes = self.get_variable(self._home, 'codes')
    if self.affine:
      codes = codes * self._stretched()[None] + self.affine * self.shift[None]
    if self.distance == 'cosine':
      return coding.normalize_codes(codes)
    return codes

  def _stretched(self) -> Array:
    return 1 + self.affine * self.stretch

  def _as_stored(self, codes: Array) -> Array:
    """Undoes the affine map."""
    if not self.affine:
      return codes
    codes = codes - self.affine * self.shift[None]
    return codes / self._stretched()[None]

  def _assign(self, signals, codes, weights, train: bool) -> Array:
    if not (train and self.assignment == 'sinkhorn'):
      return coding.nearest_code(signals, codes)
    costs = jnp.sqrt(coding.squared_distances(signals, codes))
    plan = coding.sinkhorn(costs, weights=weights)
    return largest(plan)

  def _descend(self, codes, signals, indices, weights) -> Array:
    """Moves codes down the slope of the codebook loss, at these indices."""
    errors = codes[indices] - signals
    if weights is not None:
      errors *= weights[:, None]
    count = signals.shape[0] if weights is None else jnp.sum(weights)
    slope = jnp.zeros_like(codes).at[indices].add(errors)
    slope *= 2 / (jnp.maximum(count, 1) * self.D)
    return lax.stop_gradient(codes - self.rate * slope)

  def _track(self, signals, indices, weights, codes) -> None:
    """Updates the use of codes and, unless by a loss, the codes."""
    if self.learning == 'ema':
      codes = self._learn(signals, indices, weights)
    else:
      use, _ = use_stats(indices, self.K, weights)
      self.use.value += (1 - self.decay) * (use - self.use.value)
    if self.learning != 'loss':
      self.put_variable('codebook', 'codes', codes)

  def _learn(self, signals, indices, weights) -> Array:
    """Updates the statistics of EMA K-means, and returns its codes."""
    old = self.get_variable('codebook', 'codes')
    codes = coding.follow_signals(
      old, self.use.value, signals, indices, weights, self.revive_below
    )
    # Sums move with the codes, as if past signals had been where these are.
    sums = self.sums.value + self.use.value[:, None] * (codes - old)
    statistics = CodebookStatistics(self.use.value, sums)
    statistics, codes = coding.update_codebook(
      statistics, signals, indices, self.decay, weights, codes
    )
    self.use.value, self.sums.value = statistics
    return codes
