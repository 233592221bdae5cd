"""The transformer of all priors over maps: one block, stacked by a scan."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

# Rotary positions of maps: wavelengths of 6 to about 600 sites (B. Heo et al.,
# arXiv 2403.13298, have the same base along each axis).
_BASE = 100.0

zeros = nn.initializers.zeros


class Cache(NamedTuple):
  """Keys and values of the sites so far.

  Attributes:
    k, v: [L, B, T, heads, w / heads] of all layers; those of one layer are
      [B, T, heads, w / heads].
  """

  k: Array
  v: Array


def rotate(x: Array, positions: Array) -> Array:
  """Returns x turned by its positions: rotary embedding of rows and columns.

  J. Su et al., arXiv 2104.09864, along each axis: the first half of a head
  turns by the row, the second by the column. Products of two turned vectors
  depend on the difference of their positions alone.

  Args:
    x: [B, T, heads, d], d a multiple of 4.
    positions: int32 [B or 1, T, 2], row and column.
  """
  quarter = x.shape[-1] // 4
  rates = _BASE ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
  # [B, T, 1, 2, d / 4]
  angles = positions[:, :, None, :, None] * rates[None, None, None, None]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  parts = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, 2, quarter)
  a, b = parts[..., 0, :], parts[..., 1, :]
  turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-2)
  return turned.reshape(x.shape).astype(x.dtype)


def swiglu_width(width: int) -> int:
  """Returns the hidden width of SwiGLU: 8/3 w, in multiples of 8."""
  return 8 * round(width / 3)


class SwiGLU(nn.Module):
  """Maps [..., w] by W (silu(G x) * U x): N. Shazeer, arXiv 2002.05202.

  Attributes:
    out_init: of W.
  """

  width: int
  out_init: nn.initializers.Initializer = zeros
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    wide = nn.Dense(
      2 * swiglu_width(self.width), use_bias=False, dtype=self.dtype, name='up'
    )(x)
    gate, up = jnp.split(wide, 2, axis=-1)
    return nn.Dense(
      self.width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=self.out_init,
      name='down',
    )(nn.silu(gate) * up)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
  """Returns x [B, T, w] scaled by 1 + scale and shifted, both [B, w]."""
  return x * (1 + scale[:, None]) + shift[:, None]


class Modulation(nn.Module):
  """Maps a condition [B, w] to `parts` arrays [B, w], 0 at the start."""

  parts: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, condition: Array) -> list[Array]:
    dense = nn.Dense(
      self.parts * condition.shape[-1], dtype=self.dtype, kernel_init=zeros
    )
    return jnp.split(dense(nn.silu(condition)), self.parts, axis=-1)


class Block(nn.Module):
  """Attends, then transforms each position: two residual branches.

  Norms (RMSNorm, also of queries and keys) come first, softmax and norms are of
  float32. Where `conditioned`, a branch adds nothing at the start of training,
  since its gate is 0 (adaLN-Zero: W. Peebles and S. Xie, arXiv 2212.09748).
  """

  width: int
  heads: int
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32
  conditioned: bool = False

  def setup(self):
    # Kernels of 0 would keep a gate of 0 there, and priors of codes learn more
    # slowly from them.
    out = nn.initializers.lecun_normal()
    dense = {'use_bias': False, 'dtype': self.dtype}
    norm = {'use_scale': not self.conditioned, 'dtype': self.dtype}
    self.norm_attention = nn.RMSNorm(**norm)
    self.norm_mlp = nn.RMSNorm(**norm)
    self.norm_q = nn.RMSNorm(dtype=self.dtype)
    self.norm_k = nn.RMSNorm(dtype=self.dtype)
    self.qkv = nn.Dense(3 * self.width, **dense)
    self.out = nn.Dense(self.width, kernel_init=out, **dense)
    self.mlp = SwiGLU(self.width, out, self.dtype)
    self.drop = nn.Dropout(self.dropout)
    if self.conditioned:
      self.modulation = Modulation(6, self.dtype)

  def __call__(
    self,
    x: Array,
    positions: Array,
    mask: Array | None = None,
    condition: Array | None = None,
    train: bool = False,
  ) -> Array:
    """Returns x [B, T, w] after both branches.

    Args:
      positions: int32 [B or 1, T, 2], row and column.
      mask: bool [..., T, T], which keys (last) a query sees; None is all.
      condition: [B, w], where `conditioned`.
      train: whether to drop activations.
    """

    def attend(h):
      q, k, v = self._heads(h, positions)
      return jax.nn.dot_product_attention(q, k, v, mask=_of_heads(mask))

    return self._branches(x, attend, condition, train)

  def step(
    self,
    x: Array,
    positions: Array,
    index: Array,
    cache: Cache,
    condition: Array | None = None,
  ) -> tuple[Array, Cache]:
    """Returns x [B, 1, w] of one position, and its row of the cache.

    Args:
      positions: int32 [B or 1, 1, 2].
      index: of the position, which sees itself and those before it.
      cache: of this layer.
    """
    rows = []

    def attend(h):
      q, *kv = self._heads(h, positions)
      rows.extend(kv)
      k, v = (
        lax.dynamic_update_slice_in_dim(old, new, index, axis=1)
        for old, new in zip(cache, kv, strict=True)
      )
      seen = jnp.arange(k.shape[1]) <= index
      return jax.nn.dot_product_attention(q, k, v, mask=seen[None, None, None])

    x = self._branches(x, attend, condition, False)
    return x, Cache(*rows)

  def _heads(self, h, positions):
    """The q, k, v [B, T, heads, w / heads] of the input of attention."""
    shape = *h.shape[:-1], self.heads, self.width // self.heads
    q, k, v = (a.reshape(shape) for a in jnp.split(self.qkv(h), 3, axis=-1))
    q, k = self.norm_q(q), self.norm_k(k)
    return rotate(q, positions), rotate(k, positions), v

  def _branches(self, x, attend, condition, train):
    parts = [None] * 6
    if self.conditioned:
      parts = self.modulation(condition)

    def attention(h):
      return self.out(attend(h).reshape(h.shape))

    x = self._branch(x, self.norm_attention, attention, parts[:3], train)
    return self._branch(x, self.norm_mlp, self.mlp, parts[3:], train)

  def _branch(self, x, norm, act, parts, train):
    shift, scale, gate = parts
    h = norm(x)
    if self.conditioned:
      h = modulate(h, shift, scale)
    h = self.drop(act(h), deterministic=not train)
    return x + (h * gate[:, None] if self.conditioned else h)


def _of_heads(mask):
  """A mask [..., T, T] as [B or 1, 1, T, T]."""
  if mask is None:
    return None
  return mask.reshape(-1, 1, *mask.shape[-2:])


class Transformer(nn.Module):
  """Blocks, one after the other, and a last norm.

  Parameters of the blocks are stacked: [L, ...] each.

  Attributes:
    remat: whether each layer is computed again in the backward pass.
    conditioned: whether a condition acts on each layer and on the last norm.
  """

  width: int
  layers: int
  heads: int
  dropout: float = 0.0
  remat: bool = False
  dtype: jnp.dtype = jnp.float32
  conditioned: bool = False

  def setup(self):
    self.block = Block(
      self.width, self.heads, self.dropout, self.dtype, self.conditioned
    )
    self.norm = nn.RMSNorm(use_scale=not self.conditioned, dtype=self.dtype)
    if self.conditioned:
      self.modulation = Modulation(2, self.dtype)

  def __call__(
    self,
    x: Array,
    positions: Array,
    mask: Array | None = None,
    condition: Array | None = None,
    train: bool = False,
  ) -> Array:
    """Returns [B, T, w] in `dtype`; see `Block` for the arguments."""

    def layer(block, x, _):
      return block(x, positions, mask, condition, train), None

    if self.remat:
      layer = nn.remat(layer, prevent_cse=False)
    x, _ = self._scan(layer)(self.block, x.astype(self.dtype), None)
    return self._last(x, condition)

  def step(
    self,
    x: Array,
    position: Array,
    index: Array,
    cache: Cache,
    condition: Array | None = None,
  ) -> tuple[Array, Cache]:
    """Returns the output [B, w] of one site, and the cache with it.

    The same numbers as those of `__call__` with a causal mask, but for
    rounding.

    Args:
      x: [B, w].
      position: int32 [2].
      index: of the site, in the order of the steps.
      cache: of the sites before it; see `empty_cache`.
    """
    position = position[None, None]

    def layer(block, x, cache):
      return block.step(x, position, index, cache, condition)

    x = x[:, None].astype(self.dtype)
    x, rows = self._scan(layer)(self.block, x, cache)
    cache = jax.tree.map(
      lambda old, new: lax.dynamic_update_slice_in_dim(old, new, index, axis=2),
      cache,
      rows,
    )
    return self._last(x, condition)[:, 0], cache

  def empty_cache(self, images: int, sites: int) -> Cache:
    """Returns the cache before the first step."""
    shape = (self.layers, images, sites, self.heads, self.width // self.heads)
    return Cache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

  def _scan(self, layer):
    return nn.scan(
      layer,
      variable_axes={'params': 0},
      split_rngs={'params': True, 'dropout': True},
      length=self.layers,
    )

  def _last(self, x, condition):
    x = self.norm(x)
    if self.conditioned:
      x = modulate(x, *self.modulation(condition))
    return x
