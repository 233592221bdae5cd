"""Masks of the pixels beyond a picture that does not fill its array.

They are not read, so that a network gives the same for a picture alone.
"""

import contextlib

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lasers_jax.networks import layers
from lasers_jax.networks.resnet import Attention


def first_sites(sizes: Array, height: int, width: int) -> Array:
  """Returns the sites of pictures in maps: bool [B, height, width].

  Args:
    sizes: int32 [B, 2], of the pictures at the top left.
  """
  rows, columns = jnp.arange(height), jnp.arange(width)
  rows = rows[None] < sizes[:, :1]
  columns = columns[None] < sizes[:, 1:]
  return rows[:, :, None] & columns[:, None]


def only_first(x: Array, sizes: Array | None) -> Array:
  """Returns maps x [B, H, W, C] with zeros beyond sizes; None keeps all."""
  if sizes is None:
    return x
  inside = first_sites(sizes, *x.shape[1:3])[..., None]
  return jnp.where(inside, x, jnp.zeros((), x.dtype))


def site_means(x: Array, sizes: Array | None) -> Array:
  """Returns the means of maps [B, H, W, C] inside sizes: [B, C]."""
  if sizes is None:
    return jnp.mean(x, axis=(1, 2))
  sums = jnp.sum(only_first(x, sizes), axis=(1, 2))
  return sums / jnp.prod(sizes, axis=1)[:, None]


def within(mask: Array | None):
  """Returns a context in which layers do not read beyond pictures.

  Convolutions read zeros there, as beyond a whole map; normalisation,
  attention and interpolation leave these sites out. The output of layers there
  means nothing.

  Args:
    mask: bool [B, h, w], where the pictures are; its parts have sides that
      divide by all down-sampling factors. None reads everything.
  """
  if mask is None:
    return contextlib.nullcontext()

  def call(layer, args, options, context):
    if context.method_name != '__call__':
      return layer(*args, **options)
    x, module = args[0], context.module
    # Squares cut out of images, each a map of its own, have nothing beyond.
    if len(x) != len(mask):
      return layer(*args, **options)
    if _reads_around(module):
      x = jnp.where(_at(mask, x)[..., None], x, jnp.zeros((), x.dtype))
    elif isinstance(module, nn.GroupNorm):
      inside = jnp.broadcast_to(_at(mask, x)[..., None], x.shape)
      options = {**options, 'mask': inside}
    elif isinstance(module, Attention | layers.BilinearUp):
      options = {**options, 'mask': _at(mask, x)}
    return layer(x, *args[1:], **options)

  return nn.intercept_methods(call)


def _reads_around(module: nn.Module) -> bool:
  """Whether a layer is a convolution that sees more than one site."""
  if isinstance(module, nn.Conv):
    return any(size > 1 for size in module.kernel_size)
  resizing = layers.DownConv, layers.UpConv, layers.NearestUpConv
  return isinstance(module, resizing)


def _at(mask: Array, x: Array) -> Array:
  """The mask at the resolution of a map."""
  f = mask.shape[1] // x.shape[1]
  return mask[:, ::f, ::f]
