"""Chooses the integers of images by their bits in a file.

A bottleneck with a price of bits knows neither the file, whose tables or
contexts say what each integer really costs, nor the decoder: it minimizes the
error of latents, and that of the image is another, since no trained decoder is
a rotation. `by_bits` mends the first, `descend` both.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.bottlenecks.coder import Sites
from lasers_jax.codec.prices import prices
from lasers_jax.codec.tables import Tables
from lasers_jax.core.images import to_float
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.networks.masks import only_first

# Of `descend`: curvatures, over that of the decoder, and parts of the integers
# that may change, from the first round to the last.
_CURVATURES = 1.5, 1.1
_PARTS = 0.5, 0.25


def by_bits(
  model: Autoencoder,
  variables: Any,
  tables: Tables,
  images: np.ndarray,
  sizes: np.ndarray | None,
  real: Mapping[int, Sites],
) -> Iterator[np.ndarray]:
  """Codes images, and chooses again among the integers around and zero.

  Args:
    model: one whose bottleneck `chooses`.
    images: uint8 [B, h, w, 3], padded; `sizes` of those inside, or None.
    real: H and W of the latents, by rows.

  Yields:
    Of each row in `real`: int32 [H, W, planes].
  """
  found = jax.device_get(_choices(model, variables, images, sizes))
  for i, sites in real.items():
    z, codes, values = (x[i] for x in found)
    bits = _bits(tables, codes, values, sites, model.bottleneck.limit)
    codes = _chosen(model, variables, z, values, bits)
    yield np.asarray(codes)[_inside(sites)]


def descend(
  model: Autoencoder,
  variables: Any,
  tables: Tables,
  image: np.ndarray,
  sizes: np.ndarray | None,
  codes: np.ndarray,
  rounds: int,
) -> np.ndarray:
  """Changes the integers of an image so that the error of the image falls.

  Or rather J(q) = |x - decode(q)|² / (c step²) + λ bits(q), where c is how many
  times larger the error of a latent is in the image, so that λ is worth as much
  as in the bottleneck. In each round the decoder counts as linear, and each
  integer by itself: it goes to the minimum of its price plus a parabola with
  the gradient of the error and a curvature w. What integers do together is
  missed. So w is above c, only a part of them, drawn anew in each round, may
  change, and where J rises all the same, the part is halved.

  Latents have been refined for single images before, as numbers that are
  rounded in the end (J. Campos et al., "Content adaptive optimization for
  neural image compression", CVPR workshops 2019; Y. Yang, R. Bamler and S.
  Mandt, "Improving inference for neural image compression", NeurIPS 2020).

  Args:
    model: as in `by_bits`, with a decoder of one pass.
    tables: those of the file.
    image: uint8 [1, h, w, 3], as in `by_bits`.
    codes: of the image, int32 [H, W, planes].
    rounds: each takes a pass of the decoder and its gradient.

  Returns:
    Integers of the lowest J that was met, not above that of those given.
  """
  bottleneck, sites = model.bottleneck, codes.shape[:2]
  height, width = (n // model.stride for n in image.shape[1:3])
  beyond = (0, height - sites[0]), (0, width - sites[1]), (0, 0)
  codes = np.pad(codes, beyond)
  fixed = model, variables, to_float(image), sizes
  gain = _gain(*fixed, codes)
  lowest, kept, part = np.inf, None, 1.0
  for number in range(rounds + 1):
    share, curvature = (
      first * (last / first) ** (number / max(rounds - 1, 1))
      for first, last in (_PARTS, _CURVATURES)
    )
    seen = jax.device_get(_seen(*fixed, codes, gain, curvature))
    error, target, values = seen
    bits = _bits(tables, codes, values, sites, bottleneck.limit)
    total = error + bottleneck.price * bits[-1].sum(dtype=np.float64)
    if total < lowest:
      lowest, kept = total, (codes, target, values, bits / curvature)
    else:
      part /= 2
    if number < rounds:
      codes, *choice = kept
      chosen = np.asarray(_chosen(model, variables, *choice))
      drawn = np.random.default_rng(number).random(codes.shape)
      codes = np.where(drawn < part * share, chosen, codes)
  return kept[0][_inside(sites)]


def _inside(sites: Sites) -> tuple[slice, ...]:
  return tuple(slice(n) for n in sites)


def _bits(tables, codes, values, sites, limit) -> np.ndarray:
  """What values [k, H, W, planes] cost among codes: zero beyond the sites."""
  bits, inside = np.zeros(values.shape, np.float32), _inside(sites)
  bits[:, *inside] = prices(tables, codes[inside], limit, values[:, *inside])
  return bits


@functools.partial(jax.jit, static_argnums=0)
def _choices(model, variables, images, sizes):
  """Signals, their codes, and what the integers of these may be: by rows."""

  def choices(module, images):
    output = module(images, sizes=sizes)
    z = module.pack(output.z)
    values = module.bottleneck.choices(z)
    return z, output.latent.codes, jnp.moveaxis(values, 0, 1)

  return model.apply(variables, to_float(images), method=choices)


@functools.partial(jax.jit, static_argnums=0)
def _chosen(model, variables, z, values, bits):
  def choose(module):
    return module.bottleneck.choose(z, values, bits)

  return model.apply(variables, method=choose)


def _error(module, signals: Array, x: Array, sizes: Array | None) -> Array:
  """The squared error of signals [H, W, D] in an image x [1, h, w, 3]."""
  decoded = module.decode_latent(module.unpack(signals[None]), sizes)
  return jnp.sum(only_first(decoded - x, sizes) ** 2)


@functools.partial(jax.jit, static_argnums=0)
def _gain(model, variables, x, sizes, codes) -> Array:
  """c: of errors of half a step, with signs at random, in all signals."""

  def gain(module):
    signals = module.bottleneck.decode(codes)
    decoded = module.decode_latent(module.unpack(signals[None]), sizes)
    signs = jax.random.rademacher(jax.random.key(0), signals.shape, x.dtype)
    sites = None if sizes is None else module.padded(sizes) // module.stride
    [change] = only_first(0.5 * module.bottleneck.step * signs[None], sites)
    moved = _error(module, signals + change, decoded, sizes)
    return moved / jnp.sum(change**2)

  return model.apply(variables, method=gain)


@functools.partial(jax.jit, static_argnums=0)
def _seen(model, variables, x, sizes, codes, gain, curvature):
  """The error over c step², where the integers go, and those around.

  The last of those around are the integers themselves.
  """

  def seen(module):
    bottleneck = module.bottleneck
    signals = bottleneck.decode(codes)
    error = functools.partial(_error, module, x=x, sizes=sizes)
    error, gradient = jax.value_and_grad(error)(signals)
    target = signals - gradient / (2 * gain * curvature)
    values = jnp.concatenate([bottleneck.choices(target), codes[None]])
    return error / (gain * bottleneck.step**2), target, values

  return model.apply(variables, method=seen)
