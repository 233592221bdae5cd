"""The networks of classifiers, whose features compare images."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lasers_jax.networks import layers

WIDTH = 64  # of the features of `Classifier`
CHANNELS = 64  # of the first layers of `ResidualClassifier`
EPSILON = 1e-5  # added to a variance


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

  def logits(self, images: Array, train: bool = False) -> Array:
    """Returns the logits of the classes: [B, classes]."""
    del train  # which makes no difference
    return self.head(self(images))


class ResidualClassifier(nn.Module):
  """A network that maps images [B, h, w, 3] in [0, 1] to features [B, 256].

  A convolution of stride 2, then 1, 3 and 3 convolutions at 1/2, 1/4 and 1/8 of
  the side, with twice the channels each time, and the maximum over the sites:
  the plan of D. Page, "How to train your ResNet" (2018), at half the side.
  `logits` adds a linear map to the classes. Sides are even, and 8 or more.

  Batches are normalised in training alone: the trained network has convolutions
  and nothing else (`folded`), so features do not depend on the batch.
  """

  classes: int

  def setup(self):
    self.first = _Layer(CHANNELS, halves=True)
    self.residual = _Layer(CHANNELS)
    self.blocks = [_Block(c * CHANNELS) for c in (2, 4)]
    self.head = nn.Dense(self.classes, kernel_init=nn.initializers.zeros)

  def __call__(self, images: Array, train: bool = False) -> Array:
    x = self.first(4 * (images - 0.5), train)
    x = x + self.residual(x, train)
    for block in self.blocks:
      x = block(_pool(x), train)
    return nn.max_pool(x, x.shape[1:3])[:, 0, 0]

  def logits(self, images: Array, train: bool = False) -> Array:
    """Returns the logits of the classes: [B, classes]."""
    return self.head(self(images, train))


class _Block(nn.Module):
  """A convolution, and two that add to it: [B, H, W, C] -> [B, H, W, c]."""

  channels: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = _Layer(self.channels)(x, train)
    y = _Layer(self.channels)(x, train)
    return x + _Layer(self.channels)(y, train)


class _Layer(nn.Module):
  """Convolves and bends, and normalises in training.

  Maps [B, H, W, C] to [B, H, W, channels], or to half the sides if it `halves`.
  """

  channels: int
  halves: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    if self.halves:
      x = layers.DownConv(self.channels, name='conv')(x)
    else:
      x = layers.conv(self.channels, 3, jnp.float32, name='conv')(x)
    if train:
      x = nn.BatchNorm(False, momentum=0.95, epsilon=EPSILON, name='norm')(x)
    return nn.relu(x)


def folded(params: Any, statistics: Any) -> Any:
  """Returns the parameters of a trained network without normalisation.

  Each convolution takes over the scale and the offset of the normalisation that
  follows it, with the means and variances of training.

  Args:
    params: of a network of this file.
    statistics: its collection `batch_stats`; empty where nothing is normalised.
  """
  if 'norm' not in params:
    return {
      name: folded(x, statistics.get(name, {})) if isinstance(x, dict) else x
      for name, x in params.items()
    }
  conv, norm, own = params['conv'], params['norm'], statistics['norm']
  scale = norm['scale'] / jnp.sqrt(own['var'] + EPSILON)
  bias = (conv['bias'] - own['mean']) * scale + norm['bias']
  return {
    'conv': {'kernel': conv['kernel'] * scale[None, None, None], 'bias': bias}
  }


def _pool(x: Array) -> Array:
  """Returns the largest of each 2x2 sites; an odd last site is left out."""
  # Not x.max(): its gradient divides by how many sites equal the largest, which
  # is none, and gives NaN, where XLA:CPU computes x twice, rounded otherwise.
  b, h, w, c = x.shape
  x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
  rows = jnp.maximum(x[:, :, 0], x[:, :, 1])
  return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])
