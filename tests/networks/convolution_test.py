import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.networks import layers
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


@pytest.mark.parametrize('k, padding, c, o', CASES)
def test_values_and_gradients_are_those_of_lax_in_float64(k, padding, c, o):
  given = inputs(k, c, o)
  ours = both_ways(convolve, padding)(*given)
  with jax.enable_x64(True):
    wide = [jnp.asarray(np.asarray(a), jnp.float64) for a in given]
    theirs = jax.tree.map(np.asarray, both_ways(plain, padding)(*wide))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert a.shape == b.shape
    assert a.dtype == jnp.float32
    assert b.dtype == np.float64
    np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max(), rtol=1e-6)


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
def test_strides_have_blocks_in_the_gradients_of_a_cpu_alone(act):
  x, kernel = inputs(4, 8, 2)
  x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  traced = both_ways(lambda *xs: act(*xs[:2]), None).trace(x, kernel)
  text = {
    platform: traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ('cpu', 'cuda', 'tpu')
  }
  # One forwards and two back; the blocks of a CPU go back by products.
  for platform, convolutions in (('cpu', 1), ('cuda', 3), ('tpu', 3)):
    assert text[platform].count('stablehlo.convolution') == convolutions
    assert ('concatenate' in text[platform]) == (platform == 'cpu')
