"""Finite scalar quantization, and the base of it and of binary codes.

F. Mentzer, D. Minnen, E. Agustsson and M. Tschannen, "Finite scalar
quantization: VQ-VAE made simple", ICLR 2024. The paper's model ends in as many
channels as there are levels; here the linear maps to the scalars and back to D
belong to the bottleneck, and are there even where D is that number.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lasers_jax.bottlenecks.base import (
  Bottleneck,
  Latent,
  fixed_length_bits,
  relative_error,
  use_stats,
)
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.bottlenecks.gradients import straight_through
from lasers_jax.bottlenecks.parts import Parts, channels
from lasers_jax.bottlenecks.rates import Asked, Fields
from lasers_jax.coding import finite
from lasers_jax.coding.search import linear
from lasers_jax.core.ranges import Range

# More codes than this are counted scalar by scalar.
MOST_COUNTED = 2**18
MOST_BITS = 32  # of the number that is stored
Level = Annotated[int, Range(2, finite.MOST_LEVELS)]


class Linear(nn.Module):
  """Maps sites [N, any] by a dense layer, each independent of the others.

  Attributes:
    features: width of the output.
  """

  features: int

  @nn.compact
  def __call__(self, sites: Array) -> Array:
    shape = sites.shape[-1], self.features
    kernel = self.param(
      'kernel', nn.initializers.lecun_normal(), shape, jnp.float32
    )
    bias = self.param('bias', nn.initializers.zeros, shape[1:], jnp.float32)
    return linear(sites, kernel) + bias[None]


class Scalars(Bottleneck):
  """Maps a site to a few scalars, rounds each, and maps them back to D.

  A subclass has `levels`, their number for each scalar, and defines three maps
  of [N, d]: `_place`, to the values that are rounded; `_digits`, from these to
  levels; and `_values`, from levels to their values. One number is stored of a
  site: its levels in mixed radix. Up to MOST_COUNTED codes, that is the index
  of a site; beyond, each pair of scalar and level has an index.

  The linear map back to D need not be the inverse of that to the scalars, so
  `relative_error` says little, and may exceed 1.
  """

  def setup(self):
    self.check()
    self.narrow = Linear(len(self.levels))
    self.widen = Linear(self.D)

  @property
  def bits_per_site(self) -> float:
    return fixed_length_bits(math.prod(self.levels))

  @property
  def symbols(self) -> int:
    return math.prod(self.levels) if self._counted else sum(self.levels)

  @property
  def _counted(self) -> bool:
    return math.prod(self.levels) <= MOST_COUNTED

  def indices(self, codes: Array) -> Array:
    if self._counted:
      return codes
    digits = finite.to_digits(codes.reshape(-1), self.levels)
    starts = [sum(self.levels[:i]) for i in range(len(self.levels))]
    digits += jnp.array(starts, jnp.int32)[None]
    return digits.reshape(*codes.shape, -1)

  def atoms(self) -> Array:
    """Returns the latent of the lowest level of each scalar: [d, 1, 1, D]."""
    lowest = self._values(jnp.zeros((1, len(self.levels)), jnp.int32))
    alone = jnp.eye(len(self.levels), dtype=jnp.float32) * lowest
    added = self.widen(alone) - self.widen(jnp.zeros_like(alone))
    return added[:, None, None]

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    placed = self._placed(z)
    digits = self._digits(lax.stop_gradient(placed))
    values = self._values(digits)
    rows = None if mask is None else mask.reshape(-1)
    losses = self._losses(placed, values, rows)
    if train:
      values = straight_through(placed, values)
    quantized = self.widen(values).reshape(z.shape)
    codes = finite.to_index(digits, self.levels).reshape(z.shape[:-1])
    _, stats = use_stats(self.indices(codes), self.symbols, mask)
    stats['relative_error'] = relative_error(
      z.astype(jnp.float32), quantized, mask
    )
    return Latent(quantized.astype(z.dtype), codes, losses, stats)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: [...], from 0 to the product of levels less 1.

    The numbers are int32, or uint32 where the product exceeds 2^31.
    """
    digits = self._digits(self._placed(z))
    return finite.to_index(digits, self.levels).reshape(z.shape[:-1])

  def decode(self, codes: Array) -> Array:
    """Turns codes [...] back into quantized latents: float32 [..., D]."""
    values = self._values(finite.to_digits(codes.reshape(-1), self.levels))
    return self.widen(values).reshape(*codes.shape, self.D)

  def parts(self, codes: Array) -> Parts:
    values = self._values(finite.to_digits(codes.reshape(-1), self.levels))
    units = jnp.eye(len(self.levels), dtype=jnp.float32)
    rest = self.widen(jnp.zeros_like(units[:1]))
    amounts = values.reshape(*codes.shape, -1)
    return channels('scalar', amounts, self.widen(units) - rest, rest[0])

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> np.ndarray:
    """Codes the numbers by one table if there are few; else each level."""
    total = math.prod(self.levels)
    dtype = np.int32 if total <= 2**31 else np.uint32
    radices = [total] if self._counted else self.levels
    planes = None if codes is None else _digits(codes, radices)
    planes = coder.planes(name, planes, sites, radices)
    return (planes @ _places(radices)).astype(dtype)

  def _placed(self, z: Array) -> Array:
    sites = z.reshape(-1, self.D).astype(jnp.float32)
    return self._place(self.narrow(sites))

  def _losses(
    self, placed: Array, values: Array, mask: Array | None
  ) -> dict[str, Array]:
    return {}


def check_number(bits: int) -> None:
  """Raises ValueError if a code of so many bits does not fit one number."""
  if bits > MOST_BITS:
    raise ValueError(
      f'{bits} bits a site: a code is one number of at most {MOST_BITS} bits; '
      'copies may meet them (product)'
    )


def _places(radices: Sequence[int]) -> np.ndarray:
  """What a digit is worth: the first the least, as `coding.finite` has it."""
  return np.cumprod([1, *radices[:-1]], dtype=np.int64)


def _digits(codes: np.ndarray, radices: Sequence[int]) -> np.ndarray:
  wide = codes.astype(np.int64)[..., None]
  return wide // _places(radices) % np.array(radices, np.int64)


class FSQ(Scalars):
  """Rounds a few bounded scalars of each site (FSQ section 3.1).

  A scalar x with L levels becomes round(f(x)) / ⌊L/2⌋, where f bounds it, as
  `coding.finite.bound` says; its gradient is that of f. Losses: none.

  Attributes:
    levels: of each scalar, 5 or more by the paper's advice; their product is
      the number of codes.
  """

  levels: Annotated[tuple[Level, ...], Range(1)] = (8, 8, 8)

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    """Returns levels of about 3 bits: 8 a scalar, near 5 to 8 of the paper."""
    check_number(asked.bits)
    count = max(1, round(asked.bits / 3))
    each, more = divmod(asked.bits, count)
    return {'levels': (2 ** (each + 1),) * more + (2**each,) * (count - more)}

  def check(self) -> None:
    super().check()
    if math.prod(self.levels) > finite.MOST_CODES:
      raise ValueError(
        'the product of levels must be at most 2^32, got '
        f'{math.prod(self.levels)}'
      )

  def _place(self, scalars: Array) -> Array:
    return finite.bound(scalars, self.levels)

  def _digits(self, placed: Array) -> Array:
    return finite.nearest_levels(placed, self.levels)

  def _values(self, digits: Array) -> Array:
    return finite.level_values(digits, self.levels)
