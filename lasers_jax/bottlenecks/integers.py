"""The base of codes of one integer for each channel."""

from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.bottlenecks.base import (
  Bottleneck,
  fixed_length_bits,
  like_sites,
)
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.bottlenecks.parts import Parts, channels
from lasers_jax.bottlenecks.rates import Asked, Fields, channel_bits
from lasers_jax.core.ranges import Amount, Positive, Range

Limit = Annotated[int, Range(1, 2**15 - 1)]


REACH = 2.0  # of the integers of a fixed length; latents start about 1 large


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
  def planes(self) -> int:
    """Returns how many integers a site has."""
    return self.D

  @property
  def bits_per_site(self) -> float:
    return self.planes * fixed_length_bits(2 * self.limit + 1)

  @property
  def symbols(self) -> int:
    return self.planes * (2 * self.limit + 1)

  def indices(self, codes: Array) -> Array:
    """Returns indices of pairs of plane and integer: int32 [..., planes]."""
    starts = jnp.arange(self.planes, dtype=jnp.int32) * (2 * self.limit + 1)
    return codes + self.limit + like_sites(starts, codes)

  def atoms(self) -> Array:
    """Returns one step along each channel: [D, 1, 1, D]."""
    return jnp.diag(self._basis())[:, None, None]

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [..., planes], in [-limit, limit]."""
    steps = z.astype(jnp.float32) / like_sites(self._basis(), z)
    nearest = jnp.clip(jnp.round(steps), -self.limit, self.limit)
    return nearest.astype(jnp.int32)

  def decode(self, codes: Array) -> Array:
    """Multiplies integers [..., D] by the spacings: float32 [..., D]."""
    return codes.astype(jnp.float32) * like_sites(self._basis(), codes)

  def parts(self, codes: Array) -> Parts:
    rest = jnp.zeros(self.D, jnp.float32)
    rows = self.atoms()[:, 0, 0]
    return channels('channel', codes.astype(jnp.float32), rows, rest)

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> np.ndarray:
    found = coder.numbers(name, codes, sites, self.limit, self.planes)
    return found.astype(np.int32)


class Stepped(Integers):
  """Rounds all channels by one step, which may be chosen after training.

  A wider step costs fewer bits: one model has many rates, if the decoder has
  seen wider steps in training (Y. Choi, M. El-Khamy and J. Lee, "Variable rate
  deep image compression with a conditional autoencoder", ICCV 2019, section
  3.2).

  Attributes:
    step: distance of neighbouring values.
    price: λ, of a bit, in squared steps: integers minimize the squared error
      plus λ step² bits. 0 rounds to the nearest. Where rate and distortion are
      traded by the step, a bit is worth 0.12 to 0.17; more leaves out more.
    max_step_scale: in training each image has its own step, `step` times a
      factor from 1 to this, whose reciprocal is drawn uniformly: the errors of
      wide steps are larger and would else outweigh the others. 1: all have one
      step.
  """

  adjustable: ClassVar = ('step', 'price')

  limit: Limit = 31
  step: Positive = 0.1
  price: Amount = 0.0
  max_step_scale: Annotated[float, Range(1)] = 1.0

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    fields = super().at_rate(asked)
    return {**fields, 'step': round(REACH / (fields['limit'] + 0.5), 4)}

  @property
  def chooses(self) -> bool:
    return self.price > 0

  def choices(self, z: Array) -> Array:
    steps = self._in_steps(z)
    values = jnp.stack([jnp.floor(steps), jnp.ceil(steps), 0 * steps])
    return jnp.clip(values, -self.limit, self.limit).astype(jnp.int32)

  def choose(self, z: Array, values: Array, bits: Array) -> Array:
    errors = (self._in_steps(z)[None] - values) ** 2
    best = jnp.argmin(errors + self.price * bits, axis=0, keepdims=True)
    return jnp.take_along_axis(values, best, axis=0)[0]

  def _in_steps(self, z: Array) -> Array:
    return z.astype(jnp.float32) / self.step

  def _draw_times(self, z: Array) -> Array:
    """How many times `step` the step of each image is: [..., 1, 1, 1]."""
    shape = z.shape[:-3] + (1,) * min(z.ndim, 3)
    if self.max_step_scale == 1:
      return jnp.ones(shape, jnp.float32)
    key = self.make_rng('bottleneck')
    least = 1 / self.max_step_scale
    return 1 / jax.random.uniform(key, shape, jnp.float32, least)

  def _basis(self) -> Array:
    return jnp.full(self.D, self.step, jnp.float32)
