"""Masked vector quantization: codes for some sites alone.

M. Huang et al., "Not all image regions matter: masked vector quantization for
autoregressive image generation", CVPR 2023 (MQ-VAE). Unlike in the released
code, the bottleneck has LayerNorm instead of batch normalization, so that the
code of an image does not depend on the batch. The kept sites are quantized as
they are, without linear maps to and from codes of another width. The positions
of the kept sites are counted as bits.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lasers_jax.bottlenecks.base import Latent
from lasers_jax.bottlenecks.coder import Coder, Sites
from lasers_jax.bottlenecks.rates import USUAL_BITS, Asked, Fields
from lasers_jax.bottlenecks.wrappers import Copies
from lasers_jax.coding.positions import (
  best_positions,
  position_bits,
  put_sites,
  take_sites,
)
from lasers_jax.coding.search import map_blocks
from lasers_jax.core.ranges import Count, Range

_TRUST = 0.02  # at first, in a site that was not kept
_SMALL = 1e-5  # what variances are kept above
_CLOSE = 0.98  # fraction of a rate that meets it, as none does exactly
# The fast variance loses all digits where the mean is large.
_LayerNorm = functools.partial(
  nn.LayerNorm, epsilon=_SMALL, use_fast_variance=False
)


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
    self.score = self.param('score', _draw, self._score_net, self.D)
    self.demask = self.param('demask', _draw, self._demask_net, self.D)
    self.token = self.param('token', _uniform, (self.D,))

  def check(self) -> None:
    super().check()
    if self.inner.D != self.D:
      raise ValueError(
        f'inner must have D = {self.D}, as the sites do, got {self.inner.D}'
      )
    if self.inner.patch_side != 1:
      raise ValueError(
        'inner must code each site by itself, and patches of side '
        f'{self.inner.patch_side} are of several'
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
    scores, sites = _by_image(self._score_net, self.score, images, valid)
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
    maps = _by_image(
      self._demask_net,
      self.demask,
      grid.reshape(-1, h, w, d),
      trust.reshape(-1, h, w),
    )
    return maps.reshape(*lead, h, w, d)


class ScoreNet(nn.Module):
  """Scores the sites [B, H, W, D] that are valid, bool [B, H, W].

  Returns the scores [B, H, W] in (0, 1), and each site normalized times its
  score. The gradient reaches the scores through the latter alone: the former
  serve only to choose sites.
  """

  width: int

  @nn.compact
  def __call__(self, z: Array, valid: Array) -> tuple[Array, Array]:
    # Less than float32 would keep other sites near the threshold.
    conv = functools.partial(nn.Conv, precision='highest')
    x = conv(self.width, (3, 3))(_normalize_maps(z, valid))
    scores = nn.sigmoid(conv(1, (1, 1))(_LayerNorm()(nn.relu(x))))
    sites = _LayerNorm(use_bias=False, use_scale=False)(z)
    return scores[..., 0], scores * sites


class DemaskNet(nn.Module):
  """Fills maps [B, H, W, D] whose masked sites hold a token.

  `trust` [B, H, W] weights the attention to a site: 1 if it holds a code, less
  if not, and 0 for padding, which is never read.
  """

  D: int
  width: int
  blocks: int

  @nn.compact
  def __call__(self, grid: Array, trust: Array) -> Array:
    real = (trust > 0)[..., None]
    x = nn.Dense(self.width)(grid)
    x = nn.Conv(self.width, (3, 3))(jnp.where(real, x, 0.0))
    for _ in range(self.blocks):
      x = ResidualBlock(self.width)(x, real)
      x = TrustingAttention()(x, trust)
      trust = jnp.sqrt(trust)  # the others have learned from those by now
    x = ResidualBlock(self.width)(x, real)
    return nn.Dense(self.D)(nn.swish(_LayerNorm()(x)))


class ResidualBlock(nn.Module):
  """Adds two times (LayerNorm, swish, conv3x3) to x: [B, H, W, C] -> the same.

  Sites that are not `real`, bool [B, H, W, 1], do not affect the others.
  """

  width: int

  @nn.compact
  def __call__(self, x: Array, real: Array) -> Array:
    h = x
    for _ in range(2):
      h = nn.swish(_LayerNorm()(h))
      h = nn.Conv(self.width, (3, 3))(jnp.where(real, h, 0.0))
    return x + h


class TrustingAttention(nn.Module):
  """Adds attention of one head between all sites: [B, H, W, C] -> the same.

  See `trusting_attention` for `trust` [B, H, W].
  """

  @nn.compact
  def __call__(self, x: Array, trust: Array) -> Array:
    b, h, w, c = x.shape
    qkv = nn.Dense(3 * c)(_LayerNorm()(x))
    q, k, v = jnp.split(qkv.reshape(b, h * w, 3 * c), 3, axis=-1)
    y = trusting_attention(q, k, v, trust.reshape(b, h * w))
    return x + nn.Dense(c)(y.reshape(b, h, w, c))


@jax.custom_vjp
def trusting_attention(q: Array, k: Array, v: Array, trust: Array) -> Array:
  """Attends to each key as far as it is trusted (MQ-VAE, the de-mask module).

  The weights are softmax(q k' / √C) over the keys of positive trust, each then
  times its trust; they are not normalized again. The gradient computes them
  anew.

  Args:
    q, k, v: [B, N, C].
    trust: [B, N] in [0, 1].

  Returns:
    [B, N, C]; zeros where no key is trusted.
  """
  return _attend(q, k, v, trust)


def _attend(q: Array, k: Array, v: Array, trust: Array) -> Array:
  logits = jnp.einsum('bqc,bkc->bqk', q, k) * q.shape[-1] ** -0.5
  keys = trust[:, None]
  logits = jnp.where(keys > 0, logits, -1e30)
  return jnp.einsum('bqk,bkc->bqc', jax.nn.softmax(logits) * keys, v)


def _attention_forward(*inputs: Array):
  return _attend(*inputs), inputs


def _attention_backward(inputs: tuple[Array, ...], cotangent: Array):
  def pull(maps: tuple[Array, ...]):
    *inputs, cotangent = maps
    return jax.vjp(_attend, *inputs)[1](cotangent)

  # The [N, N] weights of one image stay in the caches of a CPU.
  return _each_image(pull, (*inputs, cotangent))


trusting_attention.defvjp(_attention_forward, _attention_backward)


def _normalize_maps(z: Array, valid: Array) -> Array:
  """Gives maps [B, H, W, D] mean 0 and variance 1, and 0 where not valid."""
  valid = valid[..., None].astype(jnp.float32)
  axes = 1, 2, 3
  count = z.shape[-1] * jnp.sum(valid, axis=axes, keepdims=True)
  count = jnp.maximum(count, 1.0)
  z = (z - jnp.sum(z * valid, axis=axes, keepdims=True) / count) * valid
  variance = jnp.sum(z**2, axis=axes, keepdims=True) / count
  return z * lax.rsqrt(variance + _SMALL)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key: Array, net: nn.Module, d: int) -> Mapping[str, Any]:
  """Draws the parameters of a network for maps [B, H, W, D]."""
  shapes = (1, 1, 1, d), (1, 1, 1)
  maps = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return net.lazy_init(key, *maps)['params']


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _by_image(net: nn.Module, params: Mapping[str, Any], *maps: Array):
  """Applies a network to maps [B, ...], one image at a time on a CPU.

  There, to the last bit, an image then does not depend on its batch.
  """
  return _each_image(lambda images: _apply(net, params, *images), maps)


def _by_image_forward(net, params, *maps):
  return _by_image(net, params, *maps), (params, *maps)


def _by_image_backward(net, inputs, cotangent):
  # Of the whole batch: XLA:CPU is slow at gradients of kernels inside a loop.
  return jax.vjp(functools.partial(_apply, net), *inputs)[1](cotangent)


_by_image.defvjp(_by_image_forward, _by_image_backward)


def _apply(net: nn.Module, params: Mapping[str, Any], *maps: Array):
  return net.apply({'params': params}, *maps)


def _each_image(function: Callable[[Any], Any], maps: Any) -> Any:
  """Applies a function to arrays [B, ...], one image at a time on a CPU."""
  return lax.platform_dependent(
    maps, cpu=lambda maps: map_blocks(function, maps, 1), default=function
  )


def _uniform(key: Array, shape: tuple[int]) -> Array:
  limit = 1 / shape[0]
  return jax.random.uniform(
    key, shape, jnp.float32, minval=-limit, maxval=limit
  )
