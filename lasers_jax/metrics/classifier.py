"""Trains a small classifier, whose features compare images such as digits.

The Fréchet distance of Inception features means little on grey digits of 28
pixels. Papers on MNIST use a network trained to classify them, and there is no
standard one: its whole recipe is here. Scores compare only between models that
were scored with the same weights, whose hash the results give.
"""

import functools
import hashlib
import logging
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from lasers_jax.core.arrays import read_arrays, write_arrays
from lasers_jax.core.images import to_float
from lasers_jax.core.storage import CACHE, make_folder
from lasers_jax.errors import InputError
from lasers_jax.metrics.base import Extractor
from lasers_jax.metrics.frechet import FeatureStatistics, frechet_distance
from lasers_jax.networks import layers

_log = logging.getLogger(__name__)

NAME = 'fd-classifier'
WIDTH = 64  # of the features
STEPS, BATCH, RATE = 2_000, 128, 1e-3
_VERSION = 1  # of the network and its training, beside the numbers above
RECIPE = (
  'two convolutions and a dense layer of 64, trained to tell the classes of '
  'the training split apart: no FID'
)


class Classifier(nn.Module):
  """A network that maps images [B, h, w, 3] in [0, 1] to features [B, 64].

  Two convolutions of stride 2 and a dense layer; `logits` adds a linear map to
  the classes. Sides must divide by 4.
  """

  classes: int

  def setup(self):
    self.convolutions = layers.DownConv(32), layers.DownConv(64)
    self.dense = nn.Dense(WIDTH)
    self.head = nn.Dense(self.classes)

  def __call__(self, images: Array) -> Array:
    x = images - 0.5
    for convolution in self.convolutions:
      x = nn.relu(convolution(x))
    return nn.relu(self.dense(x.reshape(len(x), -1)))

  def logits(self, images: Array) -> Array:
    """Returns the logits of the classes: [B, classes]."""
    return self.head(self(images))


def train_classifier(
  images: np.ndarray, labels: np.ndarray, seed: int = 0, steps: int = STEPS
) -> Extractor:
  """Trains the classifier: Adam on the cross entropy, with cosine decay.

  Args:
    images: uint8 [n, h, w, 3], sides that divide by 4.
    labels: int [n], from 0; -1 is none.

  Raises:
    InputError: images without labels.
  """
  if not len(labels) or labels.min() < 0:
    raise InputError(
      'the classifier needs a label for each image, and this data set has '
      'none: choose other features'
    )
  module = Classifier(int(labels.max()) + 1)
  params = _init(module, jax.random.key(seed), images.shape[1:])
  state = _optimizer(steps).init(params)
  rng = np.random.default_rng(seed)
  for i in range(steps):
    rows = rng.integers(0, len(images), BATCH)
    params, state, loss = _step(
      module, steps, params, state, images[rows], labels[rows]
    )
    if not (i + 1) % 500:
      _log.info('classifier: step %d/%d, loss %.4f', i + 1, steps, loss)
  return _extractor(module, params['params'])


def kept_classifier(
  images: np.ndarray, labels: np.ndarray, seed: int = 0, steps: int = STEPS
) -> Extractor:
  """Trains the classifier, or reads one that was trained in the same way.

  The user's cache keeps it under a hash of the recipe and of the images. A
  damaged file is written anew. Where the cache cannot be written, it is not
  kept.

  Args:
    images, labels, seed, steps: as of `train_classifier`.
  """
  folder = os.path.join(cache_folder(), 'classifiers')
  name = _name(images, labels, (_VERSION, WIDTH, BATCH, RATE, seed, steps))
  path = os.path.join(folder, f'{name}.npz')
  try:
    extractor = _read(path, images, labels)
    _log.info('classifier: read from %s', path)
    return extractor
  except FileNotFoundError:
    pass
  except ValueError as error:
    _log.warning('classifier: %s is damaged (%s), trained anew', path, error)
  extractor = train_classifier(images, labels, seed, steps)
  arrays = flatten_dict(jax.device_get(extractor.params), sep='/')
  try:
    make_folder(folder)
    write_arrays(path, arrays)
  except OSError as error:
    _log.warning('classifier: not kept in %s: %s', folder, error.strerror)
  return extractor


def cache_folder() -> str:
  """Returns the folder of JAX's compiled programs, or CACHE without one."""
  folder = jax.config.jax_compilation_cache_dir
  return folder if folder and '://' not in folder else os.path.expanduser(CACHE)


def _name(images: np.ndarray, labels: np.ndarray, recipe: tuple) -> str:
  digest = hashlib.sha256(repr(recipe).encode())
  for array in images, np.asarray(labels, np.int64):
    digest.update(f'{array.dtype.str} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array))
  return digest.hexdigest()[:32]


def _read(path: str, images: np.ndarray, labels: np.ndarray) -> Extractor:
  """Reads a classifier; raises ValueError where the file does not fit."""
  arrays = read_arrays(path)
  module = Classifier(int(labels.max()) + 1)
  shapes = jax.eval_shape(
    lambda key: _init(module, key, images.shape[1:]), jax.random.key(0)
  )
  expected = flatten_dict(shapes['params'], sep='/')
  if arrays.keys() != expected.keys():
    raise ValueError('other arrays')
  for name, array in arrays.items():
    like = expected[name]
    if array.shape != like.shape or array.dtype != like.dtype:
      raise ValueError(f'{name} is {array.dtype} {array.shape}')
    if not np.isfinite(array).all():
      raise ValueError(f'{name} is not finite')
  params = unflatten_dict({k: jnp.asarray(x) for k, x in arrays.items()}, '/')
  return _extractor(module, params)


def _extractor(module: Classifier, params: Any) -> Extractor:
  return Extractor(
    module,
    params,
    lambda images: images.astype(np.float32) / 255,
    FeatureStatistics,
    frechet_distance,
  )


def _optimizer(steps: int) -> optax.GradientTransformation:
  return optax.adam(optax.cosine_decay_schedule(RATE, steps))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(module, key, shape):
  return module.init(key, jnp.zeros((1, *shape)), method='logits')


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(module, steps, params, state, images, labels):
  """Takes one step of Adam; also returns the loss before it."""

  def loss(params):
    logits = module.apply(params, to_float(images), method='logits')
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(entropy)

  value, gradient = jax.value_and_grad(loss)(params)
  updates, state = _optimizer(steps).update(gradient, state)
  return optax.apply_updates(params, updates), state, value
