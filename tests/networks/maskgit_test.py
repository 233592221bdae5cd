import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import erf

from lasers_jax.errors import InputError
from lasers_jax.networks.maskgit import (
  MaskGITDecoder,
  MaskGITEncoder,
  mean_pool,
)
from lasers_jax.networks.resnet import ResidualBlock

SMALL = {'D': 4, 'channels': 32, 'multipliers': (1, 2), 'blocks': 1}
RNG = np.random.default_rng(0)


def shapes_of(module, *shape):
  return jax.eval_shape(
    module.init_with_output, jax.random.key(0), jnp.zeros(shape)
  )


def count(module, *shape):
  return sum(a.size for a in jax.tree.leaves(shapes_of(module, *shape)[1]))


def released(channels, multipliers, blocks, d):
  """Parameters of google-research/maskgit's encoder and decoder, by hand."""
  widths = [channels * m for m in multipliers]

  def block(a, b):
    return 2 * a + 9 * a * b + 2 * b + 9 * b * b + (a * b if a != b else 0)

  encoder, before = 27 * channels, channels
  for width in widths:
    encoder += block(before, width) + (blocks - 1) * block(width, width)
    before = width
  encoder += blocks * block(before, before) + 2 * before + before * d + d
  decoder = 9 * d * before + before + blocks * block(before, before)
  for i, width in reversed(list(enumerate(widths))):
    decoder += block(before, width) + (blocks - 1) * block(width, width)
    decoder += (9 * width * width + width) if i else 0
    before = width
  return encoder, decoder + 2 * before + 27 * before + 3


def test_parameters_are_those_of_the_released_tokenizer():
  """But for its convolutions after nearest neighbour, here four times wider."""
  encoder, decoder = released(128, (1, 1, 2, 2, 4), 2, 256)
  assert count(MaskGITEncoder(D=256), 1, 16, 16, 3) == encoder
  wider = sum(3 * (9 * c * c + c) for c in (128, 256, 256, 512))
  assert count(MaskGITDecoder(D=256), 1, 1, 1, 256) == decoder + wider
  # With its 1,024 codes, the 54 million that are reported of it.
  assert round((encoder + decoder + 1024 * 256) / 1e6) == 54


@pytest.mark.parametrize('height, width', [(4, 4), (1, 1), (3, 5)])
def test_shapes_follow_f(height, width):
  fields = SMALL | {'multipliers': (1, 1, 2)}
  encoder, decoder = MaskGITEncoder(**fields), MaskGITDecoder(**fields)
  assert encoder.f == decoder.f == 4
  image, site = (2, 4 * height, 4 * width, 3), (2, height, width, 4)
  z, _ = shapes_of(encoder, *image)
  y, _ = shapes_of(decoder, *site)
  assert (z.shape, y.shape) == (site, image)


def test_no_convolution_of_a_block_has_a_bias():
  for module, side in (
    (MaskGITEncoder(**SMALL), 3),
    (MaskGITDecoder(**SMALL), 4),
  ):
    _, variables = shapes_of(module, 1, 8, 8, side)
    blocks = [x for x in variables['params'] if x.startswith('ResidualBlock')]
    assert len(blocks) == 3
    for name in blocks:
      convolutions = {
        key: set(leaves)
        for key, leaves in variables['params'][name].items()
        if not key.startswith('GroupNorm')
      }
      assert set(map(frozenset, convolutions.values())) == {
        frozenset({'kernel'})
      }


def test_pooling_takes_means():
  x = RNG.standard_normal((2, 6, 4, 3)).astype(np.float32)
  expected = x.reshape(2, 3, 2, 2, 2, 3).mean((2, 4))
  np.testing.assert_allclose(mean_pool(x), expected, atol=1e-6)


def convolved(x, kernel):
  """Correlates [h, w, C] with [3, 3, C, O] in float64, zeros around."""
  h, w, _ = x.shape
  padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
  return sum(
    padded[i : i + h, j : j + w] @ np.float64(kernel[i, j])
    for i in range(3)
    for j in range(3)
  )


def normalized(x, scale, bias):
  """Normalises 32 groups of [h, w, C] in float64."""
  groups = x.reshape(*x.shape[:2], 32, -1)
  mean, variance = (
    f(groups, axis=(0, 1, 3), keepdims=True) for f in (np.mean, np.var)
  )
  return ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(
    x.shape
  ) * scale + bias


def test_a_block_against_its_equations():
  module = ResidualBlock(
    64, activation=lambda x: nn.gelu(x, approximate=False), use_bias=False
  )
  x = RNG.standard_normal((1, 5, 4, 32)).astype(np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  params = jax.tree.map(
    lambda a: 0.2 * RNG.standard_normal(a.shape).astype(np.float32), shapes
  )
  h, parts = np.float64(x[0]), params['params']
  for i in range(2):
    norm = parts[f'GroupNorm_{i}']
    h = normalized(h, norm['scale'], norm['bias'])
    h = h * (1 + erf(h / np.sqrt(2))) / 2
    h = convolved(h, parts[f'Conv_{i}']['kernel'])
  expected = x[0] @ parts['shortcut']['kernel'][0, 0] + h
  got = jax.jit(module.apply)(params, x)[0]
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('module', [MaskGITEncoder, MaskGITDecoder])
def test_computes_in_dtype_between_float32_ends(module):
  half = module(**SMALL, dtype=jnp.bfloat16)
  shape = (1, 8, 8, 3) if module is MaskGITEncoder else (1, 8, 8, 4)

  def run(x):
    init = half.init_with_output
    return init(jax.random.key(0), x, capture_intermediates=True)

  y, variables = jax.eval_shape(run, jnp.zeros(shape))
  inside = dict(variables['intermediates'])
  inside.pop('__call__')
  inside.pop('_blocks', None)

  def dtypes(tree):
    return {a.dtype for a in jax.tree.leaves(tree)}

  assert dtypes(inside) == {jnp.dtype('bfloat16')}
  assert dtypes((y, variables['params'])) == {jnp.dtype('float32')}


def test_wrong_inputs_are_refused():
  with pytest.raises(InputError, match='7x8 .* factor 2'):
    shapes_of(MaskGITEncoder(**SMALL), 1, 7, 8, 3)
  with pytest.raises(ValueError, match='5 channels, not D = 4'):
    shapes_of(MaskGITDecoder(**SMALL), 1, 2, 2, 5)
