import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.core.arrays import flat_names
from lasers_jax.errors import InputError
from lasers_jax.networks import NETWORKS, ResNetDecoder, ResNetEncoder, resnet

SMALL = {
  'D': 4,
  'channels': 32,
  'multipliers': (1, 2),
  'blocks': 1,
  'attention': (2,),
}


def shapes_of(module, *shape):
  """Returns output and variables as shapes: nothing is computed."""
  return jax.eval_shape(
    module.init_with_output, jax.random.key(0), jnp.zeros(shape)
  )


def drawn(module, *shape):
  """Returns variables of variance 1/fan_in, drawn without compiling `init`."""
  generator = np.random.default_rng(0)

  def draw(path, a):
    if path[-1].key != 'kernel':
      return np.full(a.shape, path[-1].key == 'scale', np.float32)
    deviation = np.prod(a.shape[:-1]) ** -0.5
    return generator.normal(0, deviation, a.shape).astype(np.float32)

  _, variables = shapes_of(module, *shape)
  return jax.tree_util.tree_map_with_path(draw, variables)


def count(tree):
  return sum(a.size for a in jax.tree.leaves(tree))


# A block of 64 channels: two norms of 128 and two convolutions of
# 9*64*64 + 64 = 36,928. Attention over 64: 128 + 64*192 + 192 + 64*64 + 64.
BLOCK_32, BLOCK_64, ATTENTION_64 = 18_624, 74_112, 16_768
MIDDLE = 2 * BLOCK_64 + ATTENTION_64


def test_encoder_has_the_parameters_counted_by_hand():
  _, variables = shapes_of(ResNetEncoder(**SMALL), 1, 8, 8, 3)
  first, down = 27 * 32 + 32, 16 * 32 * 32 + 32
  # 32 -> 64: norms 64 + 128, 9*32*64 + 64, 36,928, shortcut 32*64 + 64.
  widen = 192 + 18_496 + 36_928 + 2_112
  last = 128 + 9 * 64 * 4 + 4
  expected = first + BLOCK_32 + down + widen + ATTENTION_64 + MIDDLE + last
  assert count(variables) == expected == 277_860


def test_decoder_has_the_parameters_counted_by_hand():
  _, variables = shapes_of(ResNetDecoder(**SMALL), 1, 4, 4, 4)
  first, up = 9 * 4 * 64 + 64, 36_928
  # 64 -> 32: norms 128 + 64, 9*64*32 + 32, 9*32*32 + 32, shortcut 64*32 + 32.
  narrow = 192 + 18_464 + 9_248 + 2_080
  last = 64 + 27 * 32 + 3
  level = 2 * (BLOCK_64 + ATTENTION_64)
  expected = first + MIDDLE + level + up + narrow + BLOCK_32 + last
  assert count(variables) == expected == 435_587


@pytest.mark.parametrize('height, width', [(4, 4), (1, 1), (3, 5)])
def test_shapes_follow_f(height, width):
  fields = SMALL | {'multipliers': (1, 1, 2)}
  encoder, decoder = ResNetEncoder(**fields), ResNetDecoder(**fields)
  assert encoder.f == decoder.f == 4
  image, site = (2, 4 * height, 4 * width, 3), (2, height, width, 4)
  z, _ = shapes_of(encoder, *image)
  y, _ = shapes_of(decoder, *site)
  assert (z.shape, y.shape) == (site, image)


def test_one_network_serves_every_side():
  encoder = ResNetEncoder(**SMALL)
  _, square = shapes_of(encoder, 1, 16, 16, 3)
  _, wide = shapes_of(encoder, 1, 8, 32, 3)
  assert square == wide


@pytest.mark.parametrize('attention, levels', [((), 0), ((1,), 1), ((1, 2), 2)])
def test_attention_is_placed_by_factor(attention, levels):
  fields = SMALL | {'attention': attention}
  _, variables = shapes_of(ResNetEncoder(**fields), 1, 8, 8, 3)
  attending = [
    name
    for name, level in variables['params'].items()
    if name.startswith('Level') and 'Attention_0' in level
  ]
  assert len(attending) == levels
  if attention == (1,):
    assert attending == ['Level_0']


def test_attention_does_not_know_the_order_of_sites():
  generator = np.random.default_rng(1)
  x = generator.normal(size=(2, 3, 4, 8)).astype(np.float32)
  order = generator.permutation(12)

  def shuffle(x):
    return x.reshape(2, 12, 8)[:, order].reshape(2, 3, 4, 8)

  both = np.concatenate([x, shuffle(x)])
  module = resnet.Attention()
  variables = drawn(module, *x.shape)
  y, shuffled = np.split(jax.jit(module.apply)(variables, both), 2)
  np.testing.assert_allclose(shuffled, shuffle(y), atol=1e-5)
  assert not np.allclose(y, x, atol=1e-2)


def test_group_norm_takes_its_statistics_in_float32():
  class Norm(resnet.nn.Module):
    @resnet.nn.compact
    def __call__(self, x):
      return resnet.normalize(x, jnp.bfloat16)

  # bfloat16 knows the mean 8 to 1/32 and the mean square 65 to 1/4 only.
  x = 8 + np.random.default_rng(1).normal(size=(1, 32, 32, 64))
  x = x.astype(jnp.bfloat16)
  y = jax.jit(Norm().apply)(drawn(Norm(), *x.shape), x)
  assert y.dtype == jnp.bfloat16
  groups = np.asarray(x, np.float64).reshape(-1, 32, 2)
  mean, std = groups.mean((0, 2)), groups.std((0, 2))
  expected = (groups - mean[None, :, None]) / std[None, :, None]
  got = np.asarray(y, np.float64).reshape(expected.shape)
  np.testing.assert_allclose(got, expected, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize('module', [ResNetEncoder, ResNetDecoder])
def test_computes_in_dtype_between_float32_ends(module):
  shape = (1, 8, 8, 3) if module is ResNetEncoder else (1, 8, 8, 4)
  half = module(**SMALL, dtype=jnp.bfloat16)

  def run(x):
    init = half.init_with_output
    return init(jax.random.key(0), x, capture_intermediates=True)

  y, variables = jax.eval_shape(run, jnp.zeros(shape))
  inside = dict(variables['intermediates'])
  inside.pop('__call__')

  def dtypes(tree):
    return {a.dtype for a in jax.tree.leaves(tree)}

  assert dtypes(inside) == {jnp.dtype('bfloat16')}
  assert dtypes((y, variables['params'])) == {jnp.dtype('float32')}


def test_bfloat16_is_close_to_float32():
  decoder = ResNetDecoder(**SMALL)
  half_decoder = decoder.clone(dtype=jnp.bfloat16)

  @jax.jit
  def run(variables, z):
    return decoder.apply(variables, z), half_decoder.apply(variables, z)

  z = np.random.default_rng(1).normal(size=(2, 4, 4, 4)).astype(np.float32)
  y, half = run(drawn(decoder, *z.shape), z)
  assert float(y.std()) > 0.1
  assert 0 < float(abs(half - y).max()) < 0.1 * float(abs(y).max())


@pytest.mark.parametrize(
  'fields, shapes',
  [
    ({'downsample': 'conv3'}, {'DownConv_0/kernel': (3, 3, 32, 32)}),
    ({'middle_attention': False}, {'Middle_0/Attention_0/qkv/bias': None}),
    ({'decoder_channels': 16}, {'Conv_0/bias': (32,), 'to_image/bias': (3,)}),
    ({'from_latent': 6}, {'from_latent/kernel': (1, 1, 4, 6)}),
    ({}, {'from_latent/kernel': None, 'DownConv_0/kernel': (4, 4, 32, 32)}),
  ],
)
def test_fields_of_published_networks_change_these_parameters(fields, shapes):
  _, encoder = shapes_of(ResNetEncoder(**SMALL, **fields), 1, 8, 8, 3)
  _, decoder = shapes_of(ResNetDecoder(**SMALL, **fields), 1, 4, 4, 4)
  found = flat_names(encoder['params']) | flat_names(decoder['params'])
  for name, shape in shapes.items():
    assert getattr(found.get(name), 'shape', None) == shape


@pytest.mark.parametrize('groups', [32, 8, 24])
def test_groups_are_those_that_are_named(groups):
  x = np.random.default_rng(0).normal(size=(2, 3, 3, 16)).astype(np.float32)

  class Norm(resnet.nn.Module):
    @resnet.nn.compact
    def __call__(self, x):
      return resnet.normalize(x, jnp.float32, groups)

  y = Norm().apply(drawn(Norm(), *x.shape), x)
  split = x.reshape(2, 9, math.gcd(groups, 16), -1).astype(np.float64)
  mean = split.mean((1, 3), keepdims=True)
  expected = (split - mean) / split.std((1, 3), keepdims=True)
  np.testing.assert_allclose(y, expected.reshape(x.shape), atol=1e-3)


def test_wrong_inputs_are_refused():
  with pytest.raises(
    InputError, match='network.downsample is .conv5.: did you mean'
  ):
    ResNetEncoder(**SMALL, downsample='conv5')
  with pytest.raises(InputError, match='7x8 .* factor 2'):
    shapes_of(ResNetEncoder(**SMALL), 1, 7, 8, 3)
  with pytest.raises(ValueError, match='5 channels, not D = 4'):
    shapes_of(ResNetDecoder(**SMALL), 1, 2, 2, 5)


@pytest.mark.parametrize('name', NETWORKS)
def test_pairs_of_the_table_share_their_fields_and_f(name):
  own = {'side': 8} if name == 'vector' else {}
  encoder, decoder = (kind(D=3, channels=32, **own) for kind in NETWORKS[name])
  assert encoder.f == decoder.f
  fields = [set(m.__dataclass_fields__) for m in (encoder, decoder)]
  assert fields[0] == fields[1]
  side = 2 * encoder.f
  z, _ = shapes_of(encoder, 1, side, side, 3)
  y, _ = shapes_of(decoder, *z.shape)
  assert (z.shape, y.shape) == ((1, 2, 2, 3), (1, side, side, 3))
  assert z.dtype == y.dtype == jnp.float32
