"""The measures that take a network of their own, by name.

A distance compares an image with its copy; a score compares all images with all
copies, by the features of a network.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax.core.sharding import put_batch, replicated
from lasers_jax.errors import InputError
from lasers_jax.metrics import similarity
from lasers_jax.metrics.cmmd import cmmd
from lasers_jax.metrics.frechet import FeatureStatistics, frechet_distance
from lasers_jax.metrics.resize import clean_resize, cmmd_resize
from lasers_jax.pretrained import Perceptual, clip, inception
from lasers_jax.pretrained.lpips import VGG16Features, load_lpips
from lasers_jax.pretrained.weights import read_weights

MEASURES = {
  'ms_ssim': 'five scales, Gaussian 11x11, sigma 1.5, range 1',
  'lpips-vgg16': 'LPIPS v0.1, VGG16',
  'lpips-alexnet': 'LPIPS v0.1, AlexNet',
  'fd-vgg16': (
    'Fréchet distance to the same images by mean relu4_3 of VGG16, at their '
    'own size: no FID'
  ),
  'fid': (
    'rFID: Fréchet distance to the same images by Inception-2015, resized as '
    'by clean-fid'
  ),
  'cmmd': 'CMMD to the same images by the given CLIP, sigma 10, scale 1000',
}


class Extractor(NamedTuple):
  """Features of images, and what becomes of them.

  Attributes:
    module: images as `prepare` gives them -> [B, d].
    prepare: uint8 [B, h, w, 3] -> what the module takes.
    gather: makes an object with `add(features)`.
    score: of the features of images, and of their copies.
    any_size: whether the module is given images as they are, padding around
      them included, and their sizes beside.
  """

  module: nn.Module
  params: Any
  prepare: Callable[[np.ndarray], np.ndarray]
  gather: Callable[[], Any]
  score: Callable[[Any, Any], float]
  any_size: bool = False

  def start(self) -> tuple[Any, Any]:
    """Of images and of their copies, of which nothing is known yet."""
    return self.gather(), self.gather()


class Measures(NamedTuple):
  """What is to be measured besides PSNR and SSIM."""

  distances: dict[str, Perceptual]
  scores: dict[str, Extractor]

  @property
  def modules(self) -> tuple[tuple[str, nn.Module], ...]:
    """The networks of the distances, by name."""
    return tuple((name, x.module) for name, x in self.distances.items())

  @property
  def least(self) -> dict[str, int]:
    """The pixels that a side of an image must have, by name."""
    networks = {**self.distances, **self.scores}
    return {k: getattr(x.module, 'least', 1) for k, x in networks.items()}

  @property
  def params(self) -> dict[str, Any]:
    """The parameters of the distances, by name."""
    return {name: x.params for name, x in self.distances.items()}

  @property
  def protocol(self) -> dict[str, str]:
    """What results say of these measures."""
    return {k: MEASURES[k] for k in (*self.distances, *self.scores)}


NOTHING_MORE = Measures({}, {})


class MultiScale(nn.Module):
  """MS-SSIM in the form of a network without parameters."""

  least = similarity.MS_SSIM_LEAST

  def __call__(self, a: Array, b: Array, sizes: Array | None = None) -> Array:
    return similarity.ms_ssim(a, b, sizes)


class Rows:
  """Features that are kept as they come."""

  def __init__(self):
    self._parts = []

  def add(self, features: np.ndarray) -> None:
    self._parts.append(np.asarray(features))

  @property
  def all(self) -> np.ndarray:
    return np.concatenate(self._parts)


def load_measures(
  names: Sequence[str], inception_file: str = '', clip_file: str = ''
) -> Measures:
  """Loads the networks of measures.

  Args:
    names: keys of MEASURES.
    inception_file: pt_inception-2015-12-05-6726825d.pth, for 'fid'.
    clip_file: of openai/clip-vit-large-patch14-336, for 'cmmd'.

  Raises:
    InputError: an unknown name, or weights that are missing or do not fit.
  """
  for name in names:
    if name not in MEASURES:
      raise InputError(f'the measures are {", ".join(MEASURES)}, not {name!r}')
  distances = {
    'ms_ssim': lambda: (MultiScale(), {}),
    'lpips-vgg16': lambda: load_lpips('vgg16'),
    'lpips-alexnet': lambda: load_lpips('alexnet'),
  }
  scores = {
    'fd-vgg16': _fd_vgg16,
    'fid': lambda: _fid(inception_file),
    'cmmd': lambda: _cmmd(clip_file),
  }
  return Measures(
    {k: Perceptual(*load()) for k, load in distances.items() if k in names},
    {k: load() for k, load in scores.items() if k in names},
  )


def _fd_vgg16() -> Extractor:
  _, params = load_lpips('vgg16')
  return Extractor(
    VGG16Features(),
    params,
    lambda images: images.astype(np.float32) / 255,
    FeatureStatistics,
    frechet_distance,
    any_size=True,
  )


def _fid(file: str) -> Extractor:
  if not file:
    raise InputError(
      'fid needs --inception=FILE: pt_inception-2015-12-05-6726825d.pth, as '
      'pytorch-fid publishes it'
    )

  def prepare(images: np.ndarray) -> np.ndarray:
    return (clean_resize(images, inception.SIDE) - 128) / 128

  return Extractor(
    inception.InceptionV3(),
    inception.inception_params(read_weights(file)),
    prepare,
    FeatureStatistics,
    frechet_distance,
  )


def _cmmd(file: str) -> Extractor:
  if not file:
    raise InputError(
      'cmmd needs --clip=FILE: model.safetensors or pytorch_model.bin of '
      'openai/clip-vit-large-patch14-336'
    )
  arrays = read_weights(file)
  tower = clip.clip_tower(arrays)

  def prepare(images: np.ndarray) -> np.ndarray:
    return cmmd_resize(images, tower.side).astype(np.float32) / 255

  return Extractor(
    tower,
    clip.clip_params(arrays),
    prepare,
    Rows,
    lambda a, b: cmmd(a.all, b.all),
  )


def extract(
  extractor: Extractor,
  images: np.ndarray,
  mesh: Mesh,
  sizes: np.ndarray | None = None,
) -> np.ndarray:
  """Computes the features of this process's rows of a batch.

  Args:
    images: uint8 [rows, h, w, 3], as many as `put_batch` takes.
    sizes: int32 [rows, 2], of what is to be seen of each; None: all.

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
