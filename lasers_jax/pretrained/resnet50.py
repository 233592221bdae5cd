"""ResNet-50 and the perceptual distance of MaskGIT's kind.

MaskGIT (arXiv 2202.04200) and, it seems, SWYCC compare features of a ResNet
before its classifier: `perceptual_loss_on_logit = False`, weight 0.1. Assumed,
since neither paper says: the feature is the last map averaged over sites
(2,048 numbers), images are taken at their own size, and the squared difference
is averaged over the features.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from lasers_jax.errors import InputError
from lasers_jax.pretrained import weights
from lasers_jax.pretrained.trunks import check_sides, conv, scaled

_BATCH_NORM_EPSILON = 1e-5


class Bottleneck(nn.Module):
  """Applies a residual block: -> [B, H/stride, W/stride, 4 width]."""

  width: int
  stride: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    y = nn.relu(conv(self.width, 1, self.dtype, 'conv1')(x))
    y = nn.relu(conv(self.width, 3, self.dtype, 'conv2', self.stride)(y))
    y = conv(4 * self.width, 1, self.dtype, 'conv3')(y)
    if x.shape != y.shape:
      features = y.shape[-1]
      x = conv(features, 1, self.dtype, 'downsample', self.stride)(x)
    return nn.relu(x + y)


class ResNet50(nn.Module):
  """Gives features [B, 2048] float32 of images [B, h, w, 3] in [0, 1].

  He et al., arXiv 1512.03385, as in torchvision (the 3x3 convolution has the
  stride), without the classifier. Batch normalisation is of inference, and
  `load_resnet50` has it in the convolutions already. Computes in `dtype`.
  Raises InputError where a side is under 32 pixels.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    check_sides(images, 32, 'ResNet-50')
    x = scaled(images).astype(self.dtype)
    x = nn.relu(conv(64, 7, self.dtype, 'conv1', 2)(x))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for i, blocks in enumerate((3, 4, 6, 3)):
      for j in range(blocks):
        stride = 2 if i and not j else 1
        name = f'layer{i + 1}.{j}'
        x = Bottleneck(64 * 2**i, stride, self.dtype, name=name)(x)
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


class ResNet50Distance(nn.Module):
  """Measures distances [B] >= 0 of images a and b [B, h, w, 3] in [0, 1].

  The mean squared difference of their features (assumed: see above).
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
    if a.shape != b.shape:
      raise ValueError(f'images of two shapes: {a.shape} and {b.shape}')
    network = ResNet50(self.dtype, name='network')
    return jnp.mean(jnp.square(network(a) - network(b)), axis=-1)


def load_resnet50(path: str | None):
  """Returns (module, params) of `ResNet50Distance` from torchvision's weights.

  `path` names a state dict (see `weights.read_weights`). `params` are float32
  NumPy arrays. Raises InputError where the file is missing or does not fit.
  """
  if path is None:
    raise InputError(
      'ResNet-50 has no weights here: name a file of torchvision (as '
      'resnet50-0676ba61.pth) with loss.perceptual_weights.'
    )
  arrays = weights.read_weights(path)
  module, images = ResNet50Distance(), jnp.zeros((1, 32, 32, 3))
  shapes = jax.eval_shape(module.init, jax.random.key(0), images, images)
  params = {}
  for path, leaf in traverse_util.flatten_dict(shapes['params']).items():
    if path[-1] == 'kernel':
      name = '.'.join(path[1:-1])
      params[path], params[*path[:-1], 'bias'] = _folded(
        arrays, name, leaf.shape
      )
  return module, traverse_util.unflatten_dict(params)


def _folded(arrays, name, shape):
  """Returns kernel and bias of a convolution and the normalisation after it."""
  if name.endswith('downsample'):
    convolution, norm = name + '.0', name + '.1'
  else:
    convolution, norm = name, name.replace('conv', 'bn')
  kernel = weights.kernel(arrays, convolution + '.weight', shape)
  weight, bias, mean, variance = (
    weights.named(arrays, f'{norm}.{part}', shape[-1:])
    for part in ('weight', 'bias', 'running_mean', 'running_var')
  )
  factor = weight / np.sqrt(variance + _BATCH_NORM_EPSILON)
  return kernel * factor, bias - mean * factor
