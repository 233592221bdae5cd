"""Several codes for a site: of successive residuals, or of slices.

N. Zeghidour et al., "SoundStream: an end-to-end neural audio codec", TASLP 30,
2022 (residual, with dropout of levels); D. Lee et al., "Autoregressive image
generation using residual quantization", CVPR 2022 (its losses). Unlike in both,
each level has codes of its own. H. Jégou, M. Douze and C. Schmid, "Product
quantization for nearest neighbor search", PAMI 33(1), 2011 (slices).
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lasers_jax.bottlenecks.base import (
  Bottleneck,
  Latent,
  relative_error,
  site_mean,
)
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.bottlenecks.parts import Parts, joined
from lasers_jax.bottlenecks.prefixes import draw_prefixes
from lasers_jax.bottlenecks.rates import USUAL_BITS, Asked, Fields
from lasers_jax.core.ranges import Count, Fraction


class Copies(Bottleneck, kw_only=True):
  """Codes by copies of another bottleneck: a base class.

  A subclass defines `count`, the number of copies. The index of an atom or code
  of a copy is offset by the `symbols` of the copies before it. Its losses are
  those of `inner`, and so are their weights.

  Attributes:
    inner: the bottleneck to copy, with the fields of a copy; its codes must be
      discrete.
  """

  inner: Bottleneck

  def setup(self):
    self.check()
    # Flax binds `inner` anyway, so it serves as the first copy.
    others = [_copy(self.inner) for _ in range(self.count - 1)]
    self.copies = [self.inner, *others]

  def check(self) -> None:
    super().check()
    self.inner.check()
    if self.inner.bits_per_site is None:
      raise ValueError(
        'inner must have discrete codes, and those of '
        f'{type(self.inner).__name__} are continuous'
      )

  @property
  def K(self) -> int:
    return self.inner.K

  @property
  def held(self) -> bool:
    return self.inner.held

  @property
  def revive_every(self) -> int:
    return self.inner.revive_every

  @property
  def bits_per_site(self) -> float:
    return self.count * self.inner.bits_per_site

  def map_bits(self, height: int, width: int) -> float:
    return self.count * self.inner.map_bits(height, width)

  def grid(self, height: int, width: int) -> tuple[int, int]:
    return self.inner.grid(height, width)

  def crop(self, codes: Sequence[Any], height: int, width: int) -> tuple:
    return tuple(self.inner.crop(code, height, width) for code in codes)

  @property
  def symbols(self) -> int:
    return self.count * self.inner.symbols

  def indices(self, codes: Sequence[Any]) -> Array:
    """Returns the atoms or codes in use: int32 [..., any, copies]."""
    each = [
      self.inner.indices(code) + i * self.inner.symbols
      for i, code in enumerate(codes)
    ]
    return jnp.stack(each, axis=-1)

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> tuple:
    """Codes one copy after the other, each by its own tables."""
    given = [None] * self.count if codes is None else codes
    return tuple(
      self.inner.transfer(coder, sites, code, f'{name}{i}/')
      for i, code in enumerate(given)
    )

  def _parts(self, codes: Sequence[Any]) -> list[Parts] | None:
    """What each copy adds up; None where one is no sum."""
    each = [x.parts(code) for x, code in zip(self.copies, codes, strict=True)]
    sums = [x for x in each if x is not None]
    return sums if len(sums) == self.count else None

  def energies(self, name: str = '') -> dict[str, np.ndarray]:
    found = {}
    for i, copy in enumerate(self.copies):
      found |= copy.energies(f'{name}{i}/')
    return found


class Residual(Copies, kw_only=True):
  """Codes each site by levels; each codes the residual of those before it.

  The decoder's gradient reaches z and codes through the first level alone; the
  others add constants.

  Losses: those of `inner`, a mean over the levels in use; each reaches z as if
  the levels before were constant. So a commitment is of the partial sums of
  codes (RQ-VAE equation 8). Statistics are means over the levels too, except
  for `relative_error`.

  Attributes:
    depth: levels.
    dropout: fraction of the images of a batch for which training uses only the
      first levels, from 1 to all of them with equal odds.
  """

  counted_by = 'depth'

  depth: Count = 4
  dropout: Fraction = 0.0

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    counts = _divisors(asked.bits)
    if not counts:
      raise ValueError(f'{asked.bits} bits a site do not split among levels')
    count = _fewest(counts, asked.bits)
    return {'depth': count, 'inner': asked.inner(asked.bits // count, asked.d)}

  @property
  def count(self) -> int:
    return self.depth

  def check(self) -> None:
    super().check()
    if self.inner.D != self.D:
      raise ValueError(
        f'inner must have D = {self.D}, as its levels do, got {self.inner.D}'
      )

  def atoms(self) -> Array:
    return jnp.concatenate([level.atoms() for level in self.copies])

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    rest, quantized = z.astype(jnp.float32), None
    used = self._draw_levels(z) if train and self.dropout else None
    latents, fractions = [], []
    for i, level in enumerate(self.copies):
      counted, fraction = mask, 1.0
      if used is not None:
        counted = used > i if mask is None else (used > i) & mask
        fraction = site_mean((used > i).astype(jnp.float32), mask)
      latent = level(rest, train, counted)
      value = lax.stop_gradient(latent.quantized)
      rest = rest - value
      if used is not None:
        value = jnp.where((used > i)[..., None], value, 0.0)
      quantized = latent.quantized if quantized is None else quantized + value
      latents.append(latent)
      fractions.append(fraction)
    return _join(z, quantized, latents, fractions, mask)

  def encode(self, z: Array) -> tuple:
    """Codes z [..., H, W, D]: the codes of each level, as `inner` codes."""
    rest, codes = z.astype(jnp.float32), []
    for level in self.copies:
      codes.append(level.encode(rest))
      rest = rest - level.decode(codes[-1])
    return tuple(codes)

  def decode(self, codes: Sequence[Any]) -> Array:
    """Adds up the levels: float32 [..., H, W, D]."""
    quantized = self.copies[0].decode(codes[0])
    for level, code in zip(self.copies[1:], codes[1:], strict=True):
      quantized = quantized + level.decode(code)
    return quantized

  def parts(self, codes: Sequence[Any]) -> Parts | None:
    each = self._parts(codes)
    return None if each is None else joined('level', each)

  def initialize(self, z: Array) -> None:
    """Starts each level from a first batch, less the levels before it."""
    self._for_each('initialize', z)

  def revive(self, z: Array) -> None:
    """Revives each level by the residual of those before it."""
    self._for_each('revive', z)

  def _for_each(self, method: str, z: Array) -> None:
    rest = z.astype(jnp.float32)
    for level in self.copies:
      getattr(level, method)(rest)
      rest = rest - level.decode(level.encode(rest))

  def _draw_levels(self, z: Array) -> Array:
    """Draws how many levels each site uses, by its image: int32 [..., H, W]."""
    images, sites = z.shape[:-3][:1], z.shape[:-1]
    key = self.make_rng('bottleneck')
    levels = draw_prefixes(key, images, self.depth, self.dropout)
    levels = levels.reshape(images + (1,) * (len(sites) - len(images)))
    return jnp.broadcast_to(levels, sites)


class Product(Copies, kw_only=True):
  """Codes equal slices of the channels, each by itself.

  Losses and statistics: those of `inner`, means over the slices, except for
  the statistic `relative_error`.

  Attributes:
    groups: slices; they divide D.
  """

  groups: Count = 4

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    bits, d = asked.bits, asked.d
    counts = [n for n in _divisors(bits) if d % n == 0]
    if not counts:
      raise ValueError(
        f'{bits} bits a site do not split among groups that divide D = {d}'
      )
    count = _fewest(counts, bits)
    return {'groups': count, 'inner': asked.inner(bits // count, d // count)}

  @property
  def count(self) -> int:
    return self.groups

  def check(self) -> None:
    super().check()
    if self.D % self.groups:
      raise ValueError(
        f'groups must divide D = {self.D}, got groups = {self.groups}'
      )
    if self.inner.D * self.groups != self.D:
      raise ValueError(
        f'inner must have D = {self.D // self.groups}, the width of a slice, '
        f'got {self.inner.D}'
      )

  def atoms(self) -> Array:
    """Returns the atoms of each slice, with zeros in the others."""
    d, each = self.inner.D, []
    for i, copy in enumerate(self.copies):
      around = [(0, 0)] * 3 + [(i * d, self.D - (i + 1) * d)]
      each.append(jnp.pad(copy.atoms(), around))
    return jnp.concatenate(each)

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    latents = [
      copy(part, train, mask)
      for copy, part in zip(self.copies, self._slices(z), strict=True)
    ]
    quantized = jnp.concatenate([x.quantized for x in latents], axis=-1)
    return _join(z, quantized, latents, [1.0] * self.groups, mask)

  def encode(self, z: Array) -> tuple:
    """Codes z [..., H, W, D]: the codes of each slice, as `inner` codes."""
    return tuple(
      copy.encode(part)
      for copy, part in zip(self.copies, self._slices(z), strict=True)
    )

  def decode(self, codes: Sequence[Any]) -> Array:
    """Joins the slices: float32 [..., H, W, D]."""
    parts = [
      copy.decode(code) for copy, code in zip(self.copies, codes, strict=True)
    ]
    return jnp.concatenate(parts, axis=-1)

  def parts(self, codes: Sequence[Any]) -> Parts | None:
    each, d = self._parts(codes), self.inner.D
    if each is None:
      return None
    wide = [x.among(i * d, self.D) for i, x in enumerate(each)]
    return joined('slice', wide)

  def initialize(self, z: Array) -> None:
    for copy, part in zip(self.copies, self._slices(z), strict=True):
      copy.initialize(part)

  def revive(self, z: Array) -> None:
    for copy, part in zip(self.copies, self._slices(z), strict=True):
      copy.revive(part)

  def _slices(self, z: Array) -> list[Array]:
    return jnp.split(z, self.groups, axis=-1)


def _divisors(bits: int) -> list[int]:
  """The numbers of copies that bits split among."""
  return [n for n in range(2, bits + 1) if bits % n == 0]


def _fewest(counts: list[int], bits: int) -> int:
  """The fewest copies whose codebooks are not larger than usual."""
  usual = [n for n in counts if bits / n <= USUAL_BITS]
  return usual[0] if usual else counts[-1]


def _copy(module: Bottleneck) -> Bottleneck:
  # A plain clone of a copied one would share what that has inside.
  parts = {}
  if isinstance(module, Copies):
    parts['inner'] = _copy(module.inner)
  return module.clone(name=None, **parts)


def _join(z, quantized, latents, fractions, mask) -> Latent:
  """Joins the latents of copies, weighted by the fractions of use."""

  def mean(each: list[dict[str, Array]]) -> dict[str, Array]:
    return {
      name: sum(w * x[name] for w, x in zip(fractions, each, strict=True))
      / jnp.maximum(sum(fractions), 1e-30)
      for name in each[0]
    }

  stats = mean([x.stats for x in latents])
  stats['relative_error'] = relative_error(z, quantized, mask)
  return Latent(
    quantized.astype(z.dtype),
    tuple(x.codes for x in latents),
    mean([x.losses for x in latents]),
    stats,
  )
