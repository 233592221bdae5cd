"""Lattice quantization with a learned spacing.

A. Khalil, R. Piechocki and R. Santos-Rodriguez, "LL-VQ-VAE: learnable lattice
vector-quantization for efficient representations", arXiv 2310.09382.

Unlike the released code, whose integers, basis and size term are unbounded
(there, only a learning rate of 0 after the first epoch keeps it from running
away): the integers are clipped, so that a site has a fixed number of bits; the
basis is positive, so that nothing is divided by 0 (its sign changes nothing:
the lattice is the same); and the size term rewards spacings up to B alone. The
paper's dense variant is a negative weight of `size`; its own wider start is
not here.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.bottlenecks.base import (
  Latent,
  codebook_losses,
  relative_error,
  use_stats,
)
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.integers import Integers
from lasers_jax.core.ranges import Several

_LEAST = 1e-4  # no spacing is below


class Lattice(Integers):
  """Codes each site by integers, and learns the spacings b of its channels.

  Losses: `codebook`, mean |sg(z) - q|², and `size`, -sum of min(b, B) over the
  channels, which reach the basis alone, and `commitment`, mean |z - sg(q)|²,
  which reaches the encoder alone.

  If a spacing is so wide that k = 0 everywhere, the codebook loss has no
  gradient for it, and a size term without a bound would widen it forever. So
  the size term has no gradient beyond B, the widest spacing at the start.

  Attributes:
    initial_points: sets the spacings at the start: they are drawn from
      U(0, B), B = 1 / (points^(1/D) - 1), with which this number of points
      spans a cube of side 1.
  """

  loss_weights: ClassVar = {'codebook': 1.0, 'commitment': 0.25, 'size': 0.01}
  held = True

  initial_points: Several = 512

  def setup(self):
    self.check()
    self.spacing = self.param('spacing', self._draw, (self.D,))

  @property
  def widest(self) -> float:
    """Returns B, the widest spacing that the lattice starts with."""
    return 1 / (self.initial_points ** (1 / self.D) - 1)

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    exact = z.astype(jnp.float32)
    codes = self.encode(lax.stop_gradient(z))
    quantized = self.decode(codes)
    losses = codebook_losses(exact, quantized, mask)
    losses['size'] = -jnp.sum(jnp.minimum(self._basis(), self.widest))
    _, stats = use_stats(self.indices(codes), self.symbols, mask)
    stats['relative_error'] = relative_error(exact, quantized, mask)
    quantized = quantized.astype(z.dtype)
    if train:
      quantized = straight_through(z, quantized)
    return Latent(quantized, codes, losses, stats)

  def _basis(self) -> Array:
    """The spacings b [D]."""
    return jax.nn.softplus(self.spacing) + _LEAST

  def _draw(self, key: Array, shape: tuple[int]) -> Array:
    # A spacing too close to 0 has no gradient through softplus.
    b = jax.random.uniform(
      key, shape, jnp.float32, minval=0.01 * self.widest, maxval=self.widest
    )
    return b + jnp.log(-jnp.expm1(-b))  # the inverse of softplus
