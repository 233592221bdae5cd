"""The Inception network of the Fréchet inception distance.

Szegedy et al., arXiv 1512.00567, as the TensorFlow graph of 2015-12-05 has it
(Heusel et al., arXiv 1706.08500). Modules have the names of the PyTorch port,
so that the file of its weights says where each goes. Other Inception weights
have the same shapes and give other distances, which are not FID.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from lasers_jax.pretrained import weights

FILE = 'pt_inception-2015-12-05-6726825d.pth, as pytorch-fid publishes it'
SIDE = 299  # pixels
WIDTH = 2048  # of the features
_EPSILON = 1e-3  # of BatchNorm
_CLASSES = 1008  # of the graph of 2015; those trained on ImageNet have 1000


class InceptionV3(nn.Module):
  """Gives the pool3 features: [B, 299, 299, 3] in [-1, 1] -> [B, 2048] float32.

  Of uint8 images pytorch-fid makes the input by 2 x / 255 - 1, clean-fid by
  (x - 128) / 128; the results should say which. Params come from
  `inception_params`. Raises ValueError for images of another shape or type.
  """

  @nn.compact
  def __call__(self, images):
    _check(images)
    # Without it a GPU or a TPU rounds the factors of every product.
    with jax.default_matmul_precision('highest'):
      x = _stem(images.astype(jnp.float32))
      for name, features in (('5b', 32), ('5c', 64), ('5d', 64)):
        x = _BlockA(features, name=f'Mixed_{name}')(x)
      x = _BlockB(name='Mixed_6a')(x)
      for name, width in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
        x = _BlockC(width, name=f'Mixed_{name}')(x)
      x = _BlockD(name='Mixed_7a')(x)
      x = _BlockE(_mean_pool, name='Mixed_7b')(x)
      # Surely a slip in the graph of 2015, and part of the measure now.
      x = _BlockE(_max_pool_same, name='Mixed_7c')(x)
    return x.mean(axis=(1, 2))


def inception_params(arrays: Mapping[str, np.ndarray]):
  """Returns the params of `InceptionV3` from the state dict of pytorch-fid.

  arrays: by name, in the layout of torch, as in the file
  pt_inception-2015-12-05-6726825d.pth; the classifier is not used. BatchNorm
  is folded into the convolution before it. float32 NumPy arrays. Raises
  InputError where an array is missing or has another shape.
  """
  if 'fc.weight' in arrays:  # All that tells torchvision's file from this one.
    weights.named(arrays, 'fc.weight', (_CLASSES, WIDTH))
  params = {}
  for path, kernel in _kernels().items():
    name = '.'.join(path)
    params[(*path, 'kernel')], params[(*path, 'bias')] = _folded(
      arrays, name, kernel.shape
    )
  return traverse_util.unflatten_dict(params)


@functools.cache
def _kernels():
  """The kernels of the network by the path of their convolution, as shapes."""
  images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)
  flat = traverse_util.flatten_dict(shapes['params'])
  return {path[:-1]: x for path, x in flat.items() if path[-1] == 'kernel'}


def _folded(arrays, name, shape):
  """The kernel [h, w, C, O] and bias [O] of a convolution and its BatchNorm."""
  kernel = weights.kernel(arrays, f'{name}.conv.weight', shape)
  scale, shift, mean, variance = (
    weights.named(arrays, f'{name}.bn.{part}', shape[-1:])
    for part in ('weight', 'bias', 'running_mean', 'running_var')
  )
  scale = scale / np.sqrt(variance.astype(np.float64) + _EPSILON)
  kernel, bias = kernel * scale, shift - mean * scale
  return kernel.astype(np.float32), bias.astype(np.float32)


def _check(images):
  if images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
    raise ValueError(f'images must be [B, {SIDE}, {SIDE}, 3]: {images.shape}')
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f'images must be floats in [-1, 1], got {images.dtype}')


def _stem(x):
  x = _conv(x, 'Conv2d_1a_3x3', 32, (3, 3), 2)
  x = _conv(x, 'Conv2d_2a_3x3', 32, (3, 3), padding='VALID')
  x = _conv(x, 'Conv2d_2b_3x3', 64, (3, 3))
  x = _conv(_max_pool(x), 'Conv2d_3b_1x1', 80)
  x = _conv(x, 'Conv2d_4a_3x3', 192, (3, 3), padding='VALID')
  return _max_pool(x)


class _BlockA(nn.Module):
  """[B, 35, 35, C] -> [B, 35, 35, 224 + pool_features]."""

  pool_features: int

  @nn.compact
  def __call__(self, x):
    return _join(
      _conv(x, 'branch1x1', 64),
      _chain(x, 'branch5x5', (48,), (64, (5, 5))),
      _chain(x, 'branch3x3dbl', (64,), (96, (3, 3)), (96, (3, 3))),
      _conv(_mean_pool(x), 'branch_pool', self.pool_features),
    )


class _BlockB(nn.Module):
  """[B, 35, 35, C] -> [B, 17, 17, C + 480]."""

  @nn.compact
  def __call__(self, x):
    return _join(
      _conv(x, 'branch3x3', 384, (3, 3), 2),
      _chain(x, 'branch3x3dbl', (64,), (96, (3, 3)), (96, (3, 3), 2)),
      _max_pool(x),
    )


class _BlockC(nn.Module):
  """[B, 17, 17, C] -> [B, 17, 17, 768]; `width` is that between 1x7 and 7x1."""

  width: int

  @nn.compact
  def __call__(self, x):
    thin = (self.width,)
    row, column = (self.width, (1, 7)), (self.width, (7, 1))
    last_row, last_column = (192, (1, 7)), (192, (7, 1))
    return _join(
      _conv(x, 'branch1x1', 192),
      _chain(x, 'branch7x7', thin, row, last_column),
      _chain(x, 'branch7x7dbl', thin, column, row, column, last_row),
      _conv(_mean_pool(x), 'branch_pool', 192),
    )


class _BlockD(nn.Module):
  """[B, 17, 17, C] -> [B, 8, 8, C + 512]."""

  @nn.compact
  def __call__(self, x):
    row, column = (192, (1, 7)), (192, (7, 1))
    return _join(
      _chain(x, 'branch3x3', (192,), (320, (3, 3), 2)),
      _chain(x, 'branch7x7x3', (192,), row, column, (192, (3, 3), 2)),
      _max_pool(x),
    )


class _BlockE(nn.Module):
  """[B, 8, 8, C] -> [B, 8, 8, 2048]; `pool` keeps the side."""

  pool: Callable

  @nn.compact
  def __call__(self, x):
    return _join(
      _conv(x, 'branch1x1', 320),
      _fork(_chain(x, 'branch3x3', (384,)), 'branch3x3_2'),
      _fork(_chain(x, 'branch3x3dbl', (448,), (384, (3, 3))), 'branch3x3dbl_3'),
      _conv(self.pool(x), 'branch_pool', 192),
    )


def _conv(x, name, features, size=(1, 1), stride=1, padding=None):
  """Convolution and relu; keeps the side unless told otherwise."""
  padding = padding or ('SAME' if stride == 1 else 'VALID')
  strides = (stride, stride)
  return nn.relu(nn.Conv(features, size, strides, padding, name=name)(x))


def _chain(x, name, *convs):
  """Convolutions after each other, named with _1, _2, ..."""
  for i, conv in enumerate(convs, 1):
    x = _conv(x, f'{name}_{i}', *conv)
  return x


def _fork(x, name):
  """1x3 and 3x1 convolutions beside each other."""
  return _join(
    _conv(x, f'{name}a', 384, (1, 3)), _conv(x, f'{name}b', 384, (3, 1))
  )


def _join(*branches):
  return jnp.concatenate(branches, axis=-1)


def _max_pool(x):
  return nn.max_pool(x, (3, 3), (2, 2))


def _max_pool_same(x):
  return nn.max_pool(x, (3, 3), padding='SAME')


def _mean_pool(x):
  """3x3 means that, at the border, are of the pixels inside alone."""
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)
