"""The base of codes of one integer for each channel."""

from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.bottlenecks.base import (
  Bottleneck,
  fixed_length_bits,
  like_sites,
)
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.bottlenecks.rates import Asked, Fields, channel_bits
from lasers_jax.core.ranges import Range

Limit = Annotated[int, Range(1, 2**15 - 1)]


class Integers(Bottleneck):
  """Rounds each channel to multiples of its own spacing b: q = b k.

  k = round(z / b), which is Babai's rounding for a diagonal basis, clipped to
  [-limit, limit]. A subclass has `_basis`, the spacings [D].

  Attributes:
    limit: the largest |k|; 2^m - 1 uses nearly all values of m + 1 bits.
  """

  limit: Limit = 7

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    return {'limit': 2 ** (channel_bits(asked, 2) - 1) - 1}

  @property
  def bits_per_site(self) -> float:
    return self.D * fixed_length_bits(2 * self.limit + 1)

  @property
  def symbols(self) -> int:
    return self.D * (2 * self.limit + 1)

  def indices(self, codes: Array) -> Array:
    """Returns the indices of pairs of channel and integer: int32 [..., D]."""
    starts = jnp.arange(self.D, dtype=jnp.int32) * (2 * self.limit + 1)
    return codes + self.limit + like_sites(starts, codes)

  def atoms(self) -> Array:
    """Returns one step along each channel: [D, 1, 1, D]."""
    return jnp.diag(self._basis())[:, None, None]

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [..., D], in [-limit, limit]."""
    steps = z.astype(jnp.float32) / like_sites(self._basis(), z)
    nearest = jnp.clip(jnp.round(steps), -self.limit, self.limit)
    return nearest.astype(jnp.int32)

  def decode(self, codes: Array) -> Array:
    """Multiplies integers [..., D] by the spacings: float32 [..., D]."""
    return codes.astype(jnp.float32) * like_sites(self._basis(), codes)

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> np.ndarray:
    found = coder.numbers(name, codes, sites, self.limit, self.D)
    return found.astype(np.int32)
