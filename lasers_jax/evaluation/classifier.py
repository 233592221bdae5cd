"""A small classifier, trained on the spot, whose features compare digits.

The Fréchet distance of Inception means little on grey digits of 28 pixels; that
of a network trained to tell them apart is what papers on MNIST use. There is no
standard one, so its recipe is all here, and numbers compare among models that
were scored with the same weights, whose hash the results give.
"""

import functools
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lasers_jax.errors import InputError
from lasers_jax.evaluation.frechet import FeatureStatistics, frechet_distance
from lasers_jax.evaluation.measures import Extractor
from lasers_jax.networks import layers
from lasers_jax.training.step import to_float

_log = logging.getLogger(__name__)

NAME = 'fd-classifier'
WIDTH = 64  # of the features
STEPS, BATCH, RATE = 2_000, 128, 1e-3
RECIPE = (
  'two convolutions and a dense layer of 64, trained to tell the classes of '
  'the training split apart: no FID'
)


class Classifier(nn.Module):
  """Maps images [B, h, w, 3] in [0, 1] to features [B, 64].

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
  return Extractor(
    module,
    params['params'],
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
  """One step of Adam; also returns the loss before it."""

  def loss(params):
    logits = module.apply(params, to_float(images), method='logits')
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(entropy)

  value, gradient = jax.value_and_grad(loss)(params)
  updates, state = _optimizer(steps).update(gradient, state)
  return optax.apply_updates(params, updates), state, value
