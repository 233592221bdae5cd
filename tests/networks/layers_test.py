import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.networks import layers

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def normal(seed, *shape):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def strided(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=DIMENSIONS
  )


def padded_behind(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (2, 2), [(0, 1), (0, 1)], dimension_numbers=DIMENSIONS
  )


def transposed(x, kernel):
  # transpose_kernel would also swap the channels: flip by hand.
  return jax.lax.conv_transpose(
    x,
    kernel[::-1, ::-1],
    (2, 2),
    [(2, 2), (2, 2)],
    dimension_numbers=DIMENSIONS,
  )


def nearest_then_3x3(x, kernel):
  return jax.lax.conv_general_dilated(
    x.repeat(2, axis=1).repeat(2, axis=2),
    kernel,
    (1, 1),
    [(1, 1), (1, 1)],
    dimension_numbers=DIMENSIONS,
  )


CASES = {
  'down': (layers.DownConv, strided, 4, (2, 6, 10, 3)),
  'down 3x3': (
    functools.partial(layers.DownConv, size=3),
    padded_behind,
    3,
    (2, 6, 10, 3),
  ),
  'up': (layers.UpConv, transposed, 4, (2, 3, 5, 6)),
  'nearest': (layers.NearestUpConv, nearest_then_3x3, 3, (2, 3, 5, 6)),
}


@pytest.mark.parametrize('name', CASES)
def test_layer_equals_the_plain_convolution_with_gradients(name):
  layer, plain, size, shape = CASES[name]
  x, kernel = normal(0, *shape), normal(1, size, size, shape[-1], 5)
  bias = normal(2, 5)

  def ours(x, kernel, bias):
    params = {'kernel': kernel, 'bias': bias}
    return layer(5).apply({'params': params}, x)

  def theirs(x, kernel, bias):
    return plain(x, kernel) + bias[None, None, None]

  @jax.jit
  def differences(*inputs):
    y, pull = jax.vjp(ours, *inputs)
    expected, expected_pull = jax.vjp(theirs, *inputs)
    cotangent = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
    return jax.tree.map(
      lambda a, b: abs(a - b).max(),
      (y, pull(cotangent)),
      (expected, expected_pull(cotangent)),
    )

  assert max(jax.tree.leaves(differences(x, kernel, bias))) < 1e-4


@pytest.mark.parametrize('name', ['down', 'up'])
def test_layer_equals_torch_with_the_same_weights(name):
  torch = pytest.importorskip('torch')
  layer, _, _, shape = CASES[name]
  x, kernel = normal(0, *shape), normal(1, 4, 4, shape[-1], 5)
  bias = normal(2, 5)
  apply = jax.jit(layer(5).apply)
  y = apply({'params': {'kernel': kernel, 'bias': bias}}, x)
  # torch: [out, in, ...] for a convolution, [in, out, ...] transposed.
  axes = (3, 2, 0, 1) if name == 'down' else (2, 3, 0, 1)
  act = {
    'down': torch.nn.functional.conv2d,
    'up': torch.nn.functional.conv_transpose2d,
  }[name]
  expected = act(
    torch.tensor(np.array(x.transpose(0, 3, 1, 2))),
    torch.tensor(np.array(kernel.transpose(axes))),
    torch.tensor(np.array(bias)),
    stride=2,
    padding=1,
  )
  expected = expected.numpy().transpose(0, 2, 3, 1)
  np.testing.assert_allclose(y, expected, atol=1e-4)


def test_space_to_depth_has_the_documented_order_and_an_inverse():
  x = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
  y = layers.space_to_depth(x)
  np.testing.assert_array_equal(y[1, 1, 2, 3 * 2 + 1], x[1, 3, 4, 1])
  np.testing.assert_array_equal(layers.depth_to_space(y), x)
  x = x[:, :3]
  y = layers.space_to_depth(x, 3)
  np.testing.assert_array_equal(y[1, 0, 1, 3 * (3 * 2 + 1) + 1], x[1, 2, 4, 1])
  np.testing.assert_array_equal(layers.depth_to_space(y, 3), x)


@pytest.mark.parametrize('name', ['down', 'up'])
def test_start_keeps_the_variance(name):
  layer, _, _, _ = CASES[name]
  x = normal(0, 8, 16, 16, 64)
  y, variables = jax.jit(layer(64).init_with_output)(jax.random.key(1), x)
  assert 0.8 < float(y[:, 2:-2, 2:-2].var()) < 1.2
  assert not variables['params']['bias'].any()


@pytest.mark.parametrize('name', CASES)
def test_layer_keeps_float32_parameters_and_computes_in_dtype(name):
  layer, _, _, shape = CASES[name]
  init = layer(5, jnp.bfloat16).init_with_output
  y, variables = jax.eval_shape(init, jax.random.key(0), jnp.ones(shape))
  assert y.dtype == jnp.bfloat16
  dtypes = {a.dtype for a in jax.tree.leaves(variables)}
  assert dtypes == {jnp.dtype('float32')}


def test_down_conv_refuses_odd_sides():
  with pytest.raises(ValueError, match='odd sides'):
    layers.DownConv(4).init(jax.random.key(0), jnp.ones((1, 4, 5, 3)))


def test_check_sides_says_what_does_not_divide():
  layers.check_sides(jnp.ones((1, 8, 12, 3)), 4)
  with pytest.raises(InputError, match='8x10 .* factor 4'):
    layers.check_sides(jnp.ones((1, 8, 10, 3)), 4)
