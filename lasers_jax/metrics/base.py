"""The two forms of a metric: of single images, and of two sets of images."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax.core.sharding import put_batch, replicated


class PerImage(NamedTuple):
  """A metric with one value for each image and its reconstruction.

  Attributes:
    module: `module.apply({'params': params}, a, b)` returns float32 [B] for a
      and b [B, h, w, 3] in [0, 1]. A third argument, int32 [B, 2], has height
      and width of each image, which lies at the top left of its padding.
    params: of the module.
  """

  module: nn.Module
  params: Any


class Function(nn.Module):
  """A function (a, b, sizes) -> [B] as a module without parameters."""

  function: Callable[..., Array]
  minimum_side: int = 1

  def __call__(self, a: Array, b: Array, sizes: Array | None = None) -> Array:
    return self.function(a, b, sizes)


def of_function(
  function: Callable[..., Array], minimum_side: int = 1
) -> PerImage:
  """Returns the metric of single images that a function computes.

  Args:
    function: (a, b, sizes) -> float32 [B], as in `PerImage`; sizes may be None.
      `networks.masks.site_means` averages without the padding.
    minimum_side: the minimum side of an image in pixels.
  """
  return PerImage(Function(function, minimum_side), {})


class Extractor(NamedTuple):
  """A metric of two sets of images, by their features.

  Attributes:
    module: maps images, as `prepare` returns them, to features [B, d].
    params: of the module.
    prepare: maps uint8 [B, h, w, 3] to the input of the module.
    gather: returns a new collector of features, with a method `add(features)`.
    score: maps the collectors of images and of reconstructions to the value.
    any_size: whether the module takes padded images and their sizes.
  """

  module: nn.Module
  params: Any
  prepare: Callable[[np.ndarray], np.ndarray]
  gather: Callable[[], Any]
  score: Callable[[Any, Any], float]
  any_size: bool = False

  def start(self) -> tuple[Any, Any]:
    """Returns new collectors of features: of images, and of reconstructions."""
    return self.gather(), self.gather()


class Rows:
  """A collector that keeps all features in memory."""

  def __init__(self):
    self._parts = []

  def add(self, features: np.ndarray) -> None:
    """Takes features [n, d] in."""
    self._parts.append(np.asarray(features))

  @property
  def all(self) -> np.ndarray:
    """Returns all features, in the order in which they came."""
    return np.concatenate(self._parts)


def extract(
  extractor: Extractor,
  images: np.ndarray,
  mesh: Mesh,
  sizes: np.ndarray | None = None,
) -> np.ndarray:
  """Computes the features of this process's rows of a batch.

  Args:
    images: uint8 [rows, h, w, 3], as many as `put_batch` takes.
    sizes: int32 [rows, 2], height and width of each image in its padding; None:
      there is no padding.

  Returns:
    [B, d], of all processes.
  """
  rows = {}
  if sizes is None or extractor.any_size:
    rows['images'] = extractor.prepare(images)
    if sizes is not None:
      rows['sizes'] = sizes
  else:
    parts = zip(images, sizes, strict=True)
    each = [extractor.prepare(x[None, :h, :w]) for x, (h, w) in parts]
    rows['images'] = np.concatenate(each)
  batch = put_batch(rows, mesh)
  return jax.device_get(_apply(extractor.module, mesh, extractor.params, batch))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(module, mesh, params, batch) -> Array:
  features = module.apply({'params': params}, **batch)
  return jax.lax.with_sharding_constraint(features, replicated(mesh))
