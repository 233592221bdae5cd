"""Trains classifiers of the data's own labels, whose features compare images.

The Fréchet distance of Inception features means little on grey digits of 28
pixels. Papers on MNIST use a network trained to classify them, and there is no
standard one: its whole recipe is here. Scores compare only between models that
were scored with the same weights, whose hash the results give.

RECIPES has one for grey images and one for images in colour; `suited` chooses.
"""

import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from lasers_jax.core.arrays import read_arrays, write_arrays
from lasers_jax.core.images import to_float
from lasers_jax.core.storage import CACHE, make_folder
from lasers_jax.errors import InputError
from lasers_jax.metrics.base import Extractor
from lasers_jax.metrics.classifier_networks import (
  Classifier,
  ResidualClassifier,
  folded,
)
from lasers_jax.metrics.frechet import FeatureStatistics, frechet_distance

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """How a classifier is trained.

  Attributes:
    description: one line for the protocol of results.
    network: a module with the field `classes`, the method `logits(images,
      train)`, and the linear map `head` from features to logits.
    version: of the network and of what else is not among these fields.
    steps: of training, each on a batch of images drawn with replacement.
    batch: images of a step.
    rate: the highest learning rate.
    optimizer: maps rate and steps to the optimizer.
    shift: the most pixels that an image is moved by, up, down and sideways; 0
      moves and mirrors none.
    smoothing: the part of a label that is spread over all classes.
  """

  description: str
  network: type[nn.Module]
  version: int = 1
  steps: int
  batch: int = 128
  rate: float
  optimizer: Callable[[float, int], optax.GradientTransformation]
  shift: int = 0
  smoothing: float = 0.0


def _adam(rate: float, steps: int) -> optax.GradientTransformation:
  return optax.adam(optax.cosine_decay_schedule(rate, steps))


def _one_cycle(rate: float, steps: int) -> optax.GradientTransformation:
  """AdamW; the rate rises for a fifth of the steps, then falls to 0."""
  rate = optax.linear_onecycle_schedule(steps, rate, 0.2, 1.0)
  return optax.adamw(rate, b2=0.98, weight_decay=0.05, mask=_matrices)


def _matrices(params: Any) -> Any:
  return jax.tree.map(lambda x: x.ndim > 1, params)


NAME = 'fd-classifier'  # of grey images, such as digits
COLOUR = 'fd-resnet'
RECIPES = {
  NAME: Recipe(
    description=(
      'two convolutions and a dense layer of 64, trained to tell the classes '
      'of the training split apart: no FID'
    ),
    network=Classifier,
    steps=2_000,
    rate=1e-3,
    optimizer=_adam,
  ),
  COLOUR: Recipe(
    description=(
      'a residual network of nine layers, 256 features, trained to tell the '
      'classes of the training split apart in 2,800 steps of 128 images: no FID'
    ),
    network=ResidualClassifier,
    steps=2_800,
    rate=4e-3,
    optimizer=_one_cycle,
    shift=2,
    smoothing=0.1,
  ),
}


def suited(images: np.ndarray) -> str:
  """Returns the name of the recipe for images uint8 [n, h, w, 3].

  NAME where all are grey, as digits are; COLOUR otherwise.
  """
  grey = all((x == x[..., :1]).all() for x in images)
  return NAME if grey else COLOUR


def train_classifier(
  images: np.ndarray,
  labels: np.ndarray,
  recipe: Recipe,
  seed: int = 0,
  mirror: bool = False,
) -> Extractor:
  """Trains a classifier to lower the cross entropy of the labels.

  Args:
    images: uint8 [n, h, w, 3], sides that divide by 4.
    labels: int [n], from 0; -1 is none.
    recipe: of the training.
    seed: of the weights, the batches and the augmentation.
    mirror: whether a mirrored image is of the same class; a recipe that moves
      images then mirrors half of them.

  Raises:
    InputError: images without labels.
  """
  if not len(labels) or labels.min() < 0:
    raise InputError(
      'the classifier needs a label for each image, and this data set has '
      'none: --features=fd-vgg16 needs none'
    )
  module = recipe.network(int(labels.max()) + 1)
  variables = _init(module, jax.random.key(seed), images.shape[1:], True)
  params, statistics = variables['params'], variables.get('batch_stats', {})
  state = _optimizer(recipe).init(params)
  rng = np.random.default_rng(seed)
  for i in range(recipe.steps):
    rows = rng.integers(0, len(images), recipe.batch)
    batch = images[rows]
    if recipe.shift:
      batch = move(batch, recipe.shift, mirror, rng)
    params, statistics, state, loss = _step(
      module, recipe, params, statistics, state, batch, labels[rows]
    )
    if not (i + 1) % 200:
      _log.info('classifier: step %d/%d, loss %.4f', i + 1, recipe.steps, loss)
  return _extractor(module, folded(params, statistics))


def move(
  images: np.ndarray, shift: int, mirror: bool, rng: np.random.Generator
) -> np.ndarray:
  """Moves each image [n, h, w, 3] by up to `shift` pixels; mirrors half.

  What comes in at a side is the image itself, reflected there.
  """
  n, h, w, _ = images.shape
  rows, columns = (
    _reflected(np.arange(side) + rng.integers(-shift, shift + 1, (n, 1)), side)
    for side in (h, w)
  )
  if mirror:
    turned = rng.random((n, 1)) < 0.5
    columns = np.where(turned, columns[:, ::-1], columns)
  own = np.arange(n)[:, None, None]
  return images[own, rows[:, :, None], columns[:, None]]


def _reflected(places: np.ndarray, side: int) -> np.ndarray:
  places = np.abs(places)
  return np.where(places < side, places, 2 * (side - 1) - places)


def classes_of(extractor: Extractor, features: np.ndarray) -> np.ndarray:
  """Returns the classes, int [n], that a classifier finds by features [n, d].

  Args:
    extractor: of this module.
    features: of its network.
  """
  head = extractor.params['head']
  logits = np.asarray(features) @ np.asarray(head['kernel'])
  logits += np.asarray(head['bias'])
  return logits.argmax(axis=1)


def kept_classifier(
  images: np.ndarray,
  labels: np.ndarray,
  recipe: Recipe,
  seed: int = 0,
  mirror: bool = False,
) -> Extractor:
  """Trains a classifier, or reads one that was trained in the same way.

  The user's cache keeps it under a hash of the recipe and of the images. A
  damaged file is written anew. Where the cache cannot be written, it is not
  kept.

  Args:
    images, labels, recipe, seed, mirror: as of `train_classifier`.
  """
  folder = os.path.join(cache_folder(), 'classifiers')
  name = _name(images, labels, (_fields(recipe), seed, mirror))
  path = os.path.join(folder, f'{name}.npz')
  try:
    extractor = _read(path, images, labels, recipe)
    _log.info('classifier: read from %s', path)
    return extractor
  except FileNotFoundError:
    pass
  except ValueError as error:
    _log.warning('classifier: %s is damaged (%s), trained anew', path, error)
  extractor = train_classifier(images, labels, recipe, seed, mirror)
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


def _fields(recipe: Recipe) -> list:
  """Returns what tells a recipe from others; `version` stands for functions."""
  fields = {**vars(recipe), 'network': recipe.network.__name__}
  del fields['description'], fields['optimizer']
  return sorted(fields.items())


def _name(images: np.ndarray, labels: np.ndarray, recipe: tuple) -> str:
  digest = hashlib.sha256(repr(recipe).encode())
  for array in images, np.asarray(labels, np.int64):
    digest.update(f'{array.dtype.str} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array))
  return digest.hexdigest()[:32]


def _read(
  path: str, images: np.ndarray, labels: np.ndarray, recipe: Recipe
) -> Extractor:
  """Reads a classifier; raises ValueError where the file does not fit."""
  arrays = read_arrays(path)
  module = recipe.network(int(labels.max()) + 1)
  shapes = jax.eval_shape(
    lambda key: _init(module, key, images.shape[1:], False), jax.random.key(0)
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


def _extractor(module: nn.Module, params: Any) -> Extractor:
  return Extractor(
    module,
    params,
    lambda images: images.astype(np.float32) / 255,
    FeatureStatistics,
    frechet_distance,
  )


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
  return recipe.optimizer(recipe.rate, recipe.steps)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _init(module, key, shape, train):
  images = jnp.zeros((1, *shape))
  return module.init(key, images, train, method='logits')


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(module, recipe, params, statistics, state, images, labels):
  """Takes one step; also returns the loss before it."""

  def loss(params):
    logits, new = module.apply(
      {'params': params, 'batch_stats': statistics},
      to_float(images),
      train=True,
      method='logits',
      mutable=['batch_stats'],
    )
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if recipe.smoothing:
      spread = -jax.nn.log_softmax(logits).mean(axis=-1)
      entropy += recipe.smoothing * (spread - entropy)
    return jnp.mean(entropy), new.get('batch_stats', {})

  (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
  updates, state = _optimizer(recipe).update(gradient, state, params)
  return optax.apply_updates(params, updates), statistics, state, value
