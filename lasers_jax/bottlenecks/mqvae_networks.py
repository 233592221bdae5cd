"""The two networks of masked vector quantization, and how maps go through them.

M. Huang et al., "Not all image regions matter: masked vector quantization for
autoregressive image generation", CVPR 2023 (MQ-VAE).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.search import map_blocks

_SMALL = 1e-5  # what variances are kept above
# The fast variance loses all digits where the mean is large.
_LayerNorm = functools.partial(
  nn.LayerNorm, epsilon=_SMALL, use_fast_variance=False
)


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
def draw(key: Array, net: nn.Module, d: int) -> Mapping[str, Any]:
  """Draws the parameters of a network for maps [B, H, W, D]."""
  shapes = (1, 1, 1, d), (1, 1, 1)
  maps = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return net.lazy_init(key, *maps)['params']


def by_image(net: nn.Module, params: Mapping[str, Any], *maps: Array) -> Any:
  """Applies a network to maps [B, ...], one image at a time on a CPU.

  There, to the last bit, an image then does not depend on its batch.
  """
  return _by_image(net, params, *maps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _by_image(net: nn.Module, params: Mapping[str, Any], *maps: Array):
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
