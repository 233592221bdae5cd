import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.networks import convolution, layers
from lasers_jax.networks.convolution import convolve

# Side of the kernel, padding, channels of input and output: the layers of the
# networks, then what they do not have.
CASES = [
  (3, 1, 8, 8),
  (3, 1, 8, 2),
  (3, 1, 2, 16),
  (3, 1, 8, 12),
  (1, 0, 4, 16),
  (2, 0, 8, 4),
  (2, 1, 4, 8),
  (3, 0, 4, 4),
  (4, 2, 3, 5),
]


def plain(x, kernel, padding):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    [(padding, padding)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def inputs(k, c, o, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  x, kernel = rng.normal(size=(2, 5, 7, c)), rng.normal(size=(k, k, c, o))
  return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def both_ways(act, padding):
  @jax.jit
  def run(x, kernel):
    y, pull = jax.vjp(lambda *xs: act(*xs, padding), x, kernel)
    cotangent = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
    return y, pull(cotangent.astype(y.dtype))

  return run


def in_float64(act, padding, *given):
  with jax.enable_x64(True):
    given = [jnp.asarray(np.asarray(a), jnp.float64) for a in given]
    return jax.tree.map(np.asarray, both_ways(act, padding)(*given))


def assert_same(ours, theirs):
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert a.shape == b.shape
    assert a.dtype == jnp.float32
    assert b.dtype == np.float64
    np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max(), rtol=1e-6)


@pytest.mark.parametrize('k, padding, c, o', CASES)
def test_values_and_gradients_are_those_of_lax_in_float64(k, padding, c, o):
  given = inputs(k, c, o)
  ours = both_ways(convolve, padding)(*given)
  assert_same(ours, in_float64(plain, padding, *given))


def down(x, kernel, _):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (2, 2),
    [(1, 1), (1, 1)],
    dimension_numbers=convolution.DIMENSIONS,
  )


def up(x, kernel, _):
  y = jax.vjp(  # a transposed convolution is the gradient of a strided one
    lambda y: down(y, kernel.swapaxes(2, 3), None),
    jnp.zeros(
      (len(x), 2 * x.shape[1], 2 * x.shape[2], kernel.shape[3]), x.dtype
    ),
  )[1](x)
  return y[0]


# A strided layer, channels of its input and output; narrow ones and wide ones.
STRIDED = [
  (layers.down_conv, down, 3, 5),
  (layers.down_conv, down, 20, 3),
  (layers.down_conv, down, 5, 40),
  (layers.up_conv, up, 6, 3),
  (layers.up_conv, up, 3, 18),
  (layers.up_conv, up, 20, 16),
]


@pytest.mark.parametrize('windows', [True, False])
@pytest.mark.parametrize('ours, theirs, c, o', STRIDED)
def test_strided_layers_are_those_of_lax_in_float64(
  ours, theirs, c, o, windows, monkeypatch
):
  if not windows:  # as if the images were large
    monkeypatch.setattr(convolution, '_MAX_WINDOWS', 0)
  x, kernel = inputs(4, c, o)
  x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  result = both_ways(lambda x, kernel, _: ours(x, kernel), None)(x, kernel)
  assert_same(result, in_float64(theirs, None, x, kernel))


def test_gradients_have_gradients():
  x, kernel = inputs(3, 4, 4)

  def penalty(act):
    def slope(kernel):
      gradient = jax.grad(lambda x: jnp.sum(jnp.sin(act(x, kernel, 1))))(x)
      return jnp.sum(gradient**2)

    return jax.jit(jax.grad(slope))(kernel)

  np.testing.assert_allclose(penalty(convolve), penalty(plain), rtol=1e-3)


def test_bfloat16_stays_bfloat16():
  given = inputs(3, 8, 8, jnp.bfloat16)
  y, gradients = both_ways(convolve, 1)(*given)
  _, expected = both_ways(plain, 1)(*(a.astype(jnp.float32) for a in given))
  assert {a.dtype for a in (y, *gradients)} == {jnp.dtype('bfloat16')}
  for a, b in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(
      a.astype(jnp.float32), b, atol=0.02 * np.abs(b).max()
    )


def lowered(platform, shape):
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 3, shape[-1], shape[-1]), jnp.float32)
  traced = both_ways(convolve, 1).trace(x, kernel)
  return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_other_platforms_have_convolutions_alone(platform):
  text = lowered(platform, (2, 8, 8, 16))
  assert text.count('stablehlo.convolution') >= 3
  assert 'concatenate' not in text


def test_windows_are_made_on_the_cpu_unless_they_are_large():
  text = lowered('cpu', (2, 8, 8, 16))
  assert text.count('stablehlo.convolution') == 1
  assert 'concatenate' in text
  assert 'concatenate' not in lowered('cpu', (8, 256, 256, 128))


@pytest.mark.parametrize('act', [layers.down_conv, layers.up_conv])
def test_strided_layers_have_products_in_the_gradients_of_a_cpu_alone(act):
  x, kernel = inputs(4, 8, 2)
  x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  traced = both_ways(lambda *xs: act(*xs[:2]), None).trace(x, kernel)
  text = {
    platform: traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ('cpu', 'cuda', 'tpu')
  }
  # One forwards and two back. On a CPU the gradient of the kernel is a product;
  # that of the input of a transposed convolution is one, too.
  products = {layers.down_conv: 1, layers.up_conv: 2}[act]
  for platform, expected in (('cpu', products), ('cuda', 0), ('tpu', 0)):
    assert text[platform].count('stablehlo.convolution') == 3 - expected
    assert text[platform].count('stablehlo.dot_general') == expected
    assert ('concatenate' in text[platform]) == (platform == 'cpu')


def test_wide_transposed_layers_have_phases_on_a_cpu_alone():
  x, kernel = inputs(4, 8, 16)
  traced = jax.jit(layers.up_conv).trace(x, kernel)
  for platform, expected in (('cpu', 4), ('cuda', 1), ('tpu', 1)):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count('stablehlo.convolution') == expected
