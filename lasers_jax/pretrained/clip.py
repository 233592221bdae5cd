"""CLIP's image tower, a vision transformer (Radford et al., arXiv 2103.00020).

Modules have the last part of the names that Hugging Face gives their weights.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from lasers_jax.errors import InputError
from lasers_jax.pretrained import weights

FILE = (
  'model.safetensors or pytorch_model.bin of openai/clip-vit-large-patch14-336'
)
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pixels CLIP learned from
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
HEAD_WIDTH = 64  # in all towers of CLIP
_TOWER = 'vision_model.'
_LAYERS = f'{_TOWER}encoder.layers.'
_PATCHES = f'{_TOWER}embeddings.patch_embedding.weight'
_POSITIONS = f'{_TOWER}embeddings.position_embedding.weight'
_PROJECTION = 'visual_projection.weight'
_NAMES = {
  'class_embedding': f'{_TOWER}embeddings.class_embedding',
  'position_embedding': _POSITIONS,
  'patch_embedding/kernel': _PATCHES,
  'visual_projection/kernel': _PROJECTION,
}
# Where Hugging Face keeps the modules of a layer that are not directly in it.
_FOLDERS = {
  **dict.fromkeys(('q_proj', 'k_proj', 'v_proj', 'out_proj'), 'self_attn.'),
  **dict.fromkeys(('fc1', 'fc2'), 'mlp.'),
}


class ClipImageTower(nn.Module):
  """Embeds images: [B, side, side, 3] in [0, 1] -> [B, embedding] float32.

  The embeddings have unit length. `clip_tower` reads the fields from a file of
  weights, `clip_params` the params. CMMD uses openai/clip-vit-large-patch14-336
  and images of 336 pixels. Raises ValueError for images of another shape or
  type.
  """

  side: int
  patch: int
  width: int
  layers: int
  embedding: int

  @nn.compact
  def __call__(self, images):
    self._check(images)
    # Without it a GPU or a TPU rounds the factors of every product.
    with jax.default_matmul_precision('highest'):
      x = self._tokens(images)
      x = _norm('pre_layrnorm')(x)  # spelled so in the files
      for i in range(self.layers):
        x = _Layer(name=f'layers_{i}')(x)
      x = _norm('post_layernorm')(x[:, 0])
      x = nn.Dense(self.embedding, use_bias=False, name='visual_projection')(x)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

  def _tokens(self, images):
    """The class token, then one of each patch: [B, 1 + patches, width]."""
    mean, deviation = jnp.array([MEAN, DEVIATION])[:, None, None, None]
    x = (images.astype(jnp.float32) - mean) / deviation
    size = (self.patch, self.patch)
    conv = nn.Conv(
      self.width, size, size, 'VALID', use_bias=False, name='patch_embedding'
    )
    x = conv(x).reshape(len(x), -1, self.width)
    init = nn.initializers.normal(0.02)
    first = self.param('class_embedding', init, (self.width,), jnp.float32)
    first = jnp.broadcast_to(first, (len(x), 1, self.width))
    x = jnp.concatenate([first, x], axis=1)
    shape = x.shape[1:]
    places = self.param('position_embedding', init, shape, jnp.float32)
    return x + places[None]

  def _check(self, images):
    if images.ndim != 4 or images.shape[1:] != (self.side, self.side, 3):
      raise ValueError(
        f'images must be [B, {self.side}, {self.side}, 3]: {images.shape}'
      )
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(f'images must be floats in [0, 1], got {images.dtype}')


class _Layer(nn.Module):
  """x + attention, then x + perceptron, each after a norm: [B, N, width]."""

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    heads = (*x.shape[:2], width // HEAD_WIDTH, HEAD_WIDTH)
    h = _norm('layer_norm1')(x)
    q, k, v = (
      nn.Dense(width, name=f'{name}_proj')(h).reshape(heads) for name in 'qkv'
    )
    h = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
    x = x + nn.Dense(width, name='out_proj')(h)
    h = nn.Dense(4 * width, name='fc1')(_norm('layer_norm2')(x))
    return x + nn.Dense(width, name='fc2')(h * nn.sigmoid(1.702 * h))


def _norm(name):
  # The mean of squares less the squared mean loses digits in tokens with large
  # entries, and CLIP has such.
  return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


def clip_tower(arrays: Mapping[str, np.ndarray]) -> ClipImageTower:
  """Returns the tower of a state dict of Hugging Face's CLIP.

  arrays: by name, in the layout of torch: vision_model.* and
  visual_projection.weight; all else is left alone. Raises InputError where
  these do not make a tower of CLIP.
  """
  width, _, patch, _ = _shape(arrays, _PATCHES, 4)
  positions, _ = _shape(arrays, _POSITIONS, 2)
  embedding, _ = _shape(arrays, _PROJECTION, 2)
  grid = math.isqrt(max(positions - 1, 0))
  if width % HEAD_WIDTH or grid**2 != positions - 1:
    raise InputError(
      f'the weights are of no image tower of CLIP: its width must be a '
      f'multiple of {HEAD_WIDTH}, not {width}; its positions a square + 1, not '
      f'{positions}.'
    )
  inside = [name for name in arrays if name.startswith(_LAYERS)]
  layers = len({name[len(_LAYERS) :].split('.')[0] for name in inside})
  return ClipImageTower(grid * patch, patch, width, layers, embedding)


def _shape(arrays, name, axes):
  shape = arrays[name].shape if name in arrays else ()
  if len(shape) != axes:
    raise InputError(
      f'the weights are of no image tower of CLIP: they lack the array {name} '
      f'of {axes} axes.'
    )
  return shape


def clip_params(arrays: Mapping[str, np.ndarray]):
  """Returns the params of `clip_tower(arrays)`, float32 NumPy arrays.

  arrays: as for `clip_tower`. Raises InputError where an array is missing or
  has another shape.
  """
  tower = clip_tower(arrays)
  images = jax.ShapeDtypeStruct((1, tower.side, tower.side, 3), jnp.float32)
  shapes = jax.eval_shape(tower.init, jax.random.key(0), images)['params']
  flat = traverse_util.flatten_dict(shapes)
  params = {path: _param(arrays, path, x.shape) for path, x in flat.items()}
  return traverse_util.unflatten_dict(params)


def _param(arrays, path, shape):
  """One array in the layout of Flax."""
  name = _torch_name(path)
  if path[-1] != 'kernel':
    return weights.named(arrays, name, shape)
  if len(shape) == 4:
    return weights.kernel(arrays, name, shape)
  return weights.named(arrays, name, shape[::-1]).T


def _torch_name(path):
  if '/'.join(path) in _NAMES:
    return _NAMES['/'.join(path)]
  *layer, module, kind = path
  layer = f'{_LAYERS}{layer[0].removeprefix("layers_")}.' if layer else _TOWER
  part = 'bias' if kind == 'bias' else 'weight'
  return f'{layer}{_FOLDERS.get(module, "")}{module}.{part}'
