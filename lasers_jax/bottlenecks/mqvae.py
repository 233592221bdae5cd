"""Masked vector quantization: codes for some sites alone.

M. Huang et al., "Not all image regions matter: masked vector quantization for
autoregressive image generation", CVPR 2023 (MQ-VAE). Unlike in the released
code, the bottleneck has LayerNorm instead of batch normalization, so that the
code of an image does not depend on the batch. The kept sites are quantized as
they are, without linear maps to and from codes of another width. The positions
of the kept sites are counted as bits.
"""

import math
from typing import Annotated, Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.bottlenecks.base import Latent
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.bottlenecks.mqvae_networks import (
  DemaskNet,
  ScoreNet,
  by_image,
  draw,
)
from lasers_jax.bottlenecks.rates import USUAL_BITS, Asked, Fields
from lasers_jax.bottlenecks.wrappers import Copies
from lasers_jax.coding.positions import (
  best_positions,
  position_bits,
  put_sites,
  take_sites,
)
from lasers_jax.core.ranges import Count, Range

_TRUST = 0.02  # at first, in a site that was not kept
_CLOSE = 0.98  # fraction of a rate that meets it, as none does exactly


class MaskedCodes(flax.struct.PyTreeNode):
  """Holds the kept sites of maps [..., H, W], as they are stored."""

  # int32 [..., M] in [0, H·W), ascending: a set; H·W where padding left fewer.
  positions: Array | np.ndarray
  inner: Any  # of the kept sites [..., 1, M], in this order
  height: int = flax.struct.field(pytree_node=False)
  width: int = flax.struct.field(pytree_node=False)


class MQVAE(Copies, kw_only=True):
  """Codes a fraction of the sites of each image, those that score best.

  A network gives each site a score. The M best sites, normalized and times
  their score, go through `inner`; the others hold a learned token. A second
  network, whose attention trusts the kept sites more, maps these to
  `quantized`. The code of a site depends on its whole image, by the method; in
  no other bottleneck does it. The images of a batch do not depend on each
  other.

  The scores learn through the product, not through the choice. Neither network
  reads masked sites (padding), and an image keeps its fraction of the other
  sites: the last of its M positions are then H·W, and unused.

  Losses and statistics: those of `inner`, over the kept sites; so the statistic
  `relative_error` is that of the input of `inner`, and not of z.

  Attributes:
    keep: the fraction of sites that are kept; M is rounded down, at least 1.
    blocks: of the second network, each a residual block and attention.
    width: channels of both networks.
  """

  keep: Annotated[float, Range(0, 1, '(]')] = 0.25
  blocks: Count = 2
  width: Count = 64

  @property
  def held(self) -> bool:
    return False  # the second network learns by the decoder as it is

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    """Returns the largest `keep` that the bits allow, positions included."""
    most = asked.bits * asked.sites
    for bits in (*range(USUAL_BITS, 0, -1), *range(USUAL_BITS + 1, 19)):
      for kept in range(asked.sites, 0, -1):
        cost = position_bits(asked.sites, kept) + kept * bits
        if _CLOSE * most <= cost <= most:
          inner = asked.inner(bits, asked.d)
          return {'keep': kept / asked.sites, 'inner': inner}
    raise ValueError(
      f'{asked.bits} bits a site are more than {asked.sites} sites can spend'
    )

  def setup(self):
    super().setup()
    self.score = self.param('score', draw, self._score_net, self.D)
    self.demask = self.param('demask', draw, self._demask_net, self.D)
    self.token = self.param('token', _uniform, (self.D,))

  def check(self) -> None:
    super().check()
    if self.inner.D != self.D:
      raise ValueError(
        f'inner must have D = {self.D}, as the sites do, got {self.inner.D}'
      )

  @property
  def count(self) -> int:
    return 1

  @property
  def bits_per_site(self) -> float:
    """Returns the bits of a site of a large map: H2(keep), and a code's."""
    fractions = self.keep, 1 - self.keep
    positions = -sum(p * math.log2(p) for p in fractions if p)
    return positions + self.keep * super().bits_per_site

  def map_bits(self, height: int, width: int) -> float:
    """Returns the bits of the set of positions, and of M codes."""
    n = height * width
    m = self.kept(n)
    return position_bits(n, m) + super().map_bits(1, m)

  def grid(self, height: int, width: int) -> tuple[int, int]:
    """Returns the sides of one row of the sites that are kept."""
    return self.inner.grid(1, self.kept(height * width))

  def crop(self, codes: MaskedCodes, height: int, width: int) -> MaskedCodes:
    m = self.kept(height * width)
    rows, columns = np.divmod(codes.positions[:m], codes.width)
    inner = self.inner.crop(codes.inner, 1, m)
    return MaskedCodes(rows * width + columns, inner, height, width)

  def kept(self, n: int) -> int:
    """Returns M, how many of n sites are kept."""
    return max(1, math.floor(self.keep * n + 1e-6))  # 0.29 × 100 < 29

  def indices(self, codes: MaskedCodes) -> Array:
    """Returns the codes in use at the kept sites."""
    return self.inner.indices(codes.inner)

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    positions, sites = self._choose(z, mask)
    counted = None
    if mask is not None:
      h, w = mask.shape[-2:]
      counted = take_sites(mask.reshape(-1, h * w), positions)
      counted = counted.reshape(sites.shape[:-1])
    latent = self.inner(sites, train, counted)
    codes = self._codes(z, positions, latent.codes)
    quantized = self._fill(latent.quantized, codes, mask)
    return latent.replace(quantized=quantized.astype(z.dtype), codes=codes)

  def encode(self, z: Array) -> MaskedCodes:
    """Codes z [..., H, W, D]."""
    positions, sites = self._choose(z, None)
    return self._codes(z, positions, self.inner.encode(sites))

  def decode(self, codes: MaskedCodes) -> Array:
    """Fills the map: float32 [..., H, W, D]."""
    return self._fill(self.inner.decode(codes.inner), codes, None)

  def transfer(
    self, coder: Coder, sites: Sites, codes: Any = None, name: str = ''
  ) -> MaskedCodes:
    """Codes the positions of the kept sites, then their codes."""
    n = math.prod(sites)
    m = self.kept(n)
    positions, inner = (codes.positions, codes.inner) if codes else (None, None)
    positions = coder.subset(positions, m, n).astype(np.int32)
    inner = self.inner.transfer(coder, (1, m), inner, f'{name}kept/')
    return MaskedCodes(positions, inner, *sites)

  def energies(self, name: str = '') -> dict[str, np.ndarray]:
    return self.inner.energies(f'{name}kept/')

  def initialize(self, z: Array) -> None:
    """Starts `inner` from the sites of a first batch that are kept."""
    self.inner.initialize(self._choose(z, None)[1])

  def revive(self, z: Array) -> None:
    """Revives `inner` by the sites that are kept."""
    self.inner.revive(self._choose(z, None)[1])

  @property
  def _score_net(self) -> nn.Module:
    return ScoreNet(self.width, parent=None)

  @property
  def _demask_net(self) -> nn.Module:
    return DemaskNet(self.D, self.width, self.blocks, parent=None)

  def _choose(self, z: Array, mask: Array | None) -> tuple[Array, Array]:
    """Chooses the sites to keep.

    Returns:
      Positions int32 [B, M], and what is to be coded: float32 [..., 1, M, D].
    """
    *lead, h, w, d = z.shape
    images = z.reshape(-1, h, w, d).astype(jnp.float32)
    valid, counts = jnp.ones(images.shape[:-1], bool), None
    if mask is not None:
      valid = mask.reshape(valid.shape)
      kept = np.array([self.kept(n) for n in range(h * w + 1)], np.int32)
      counts = jnp.asarray(kept)[jnp.sum(valid, axis=(1, 2))]
    scores, sites = by_image(self._score_net, self.score, images, valid)
    scores = jnp.where(valid, scores, -jnp.inf).reshape(-1, h * w)
    positions = best_positions(scores, self.kept(h * w), counts)
    sites = take_sites(sites.reshape(-1, h * w, d), positions)
    return positions, sites.reshape(*lead, 1, -1, d)

  def _codes(self, z: Array, positions: Array, inner: Any) -> MaskedCodes:
    *lead, h, w, _ = z.shape
    return MaskedCodes(positions.reshape(*lead, -1), inner, h, w)

  def _fill(
    self, values: Array, codes: MaskedCodes, mask: Array | None
  ) -> Array:
    """Makes maps [..., H, W, D] of the values [..., 1, M, D] of kept sites."""
    *lead, m = codes.positions.shape
    h, w, d = codes.height, codes.width, self.D
    positions = jnp.asarray(codes.positions).reshape(-1, m)
    images = positions.shape[0]
    grid = jnp.broadcast_to(self.token, (images, h * w, d))
    grid = put_sites(grid, positions, values.reshape(-1, m, d))
    trust = put_sites(
      jnp.full((images, h * w), _TRUST, jnp.float32), positions, 1.0
    )
    if mask is not None:
      trust = jnp.where(mask.reshape(trust.shape), trust, 0.0)
    maps = by_image(
      self._demask_net,
      self.demask,
      grid.reshape(-1, h, w, d),
      trust.reshape(-1, h, w),
    )
    return maps.reshape(*lead, h, w, d)


def _uniform(key: Array, shape: tuple[int]) -> Array:
  limit = 1 / shape[0]
  return jax.random.uniform(
    key, shape, jnp.float32, minval=-limit, maxval=limit
  )
