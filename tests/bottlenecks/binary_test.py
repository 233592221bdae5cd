import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.binary import BSQ, LFQ
from tests.bottlenecks.rows import drawn, run, standard_normal

B, SIDE, D, BITS = 4, 4, 8, 5
CLASSES = [LFQ, BSQ]


@pytest.fixture(scope='module')
def z():
  return standard_normal((B, SIDE, SIDE, D))


@functools.cache
def started(cls, **fields):
  module = cls(**{'D': D, 'bits': BITS, **fields})
  variables = drawn(module)
  params = jax.tree.map(lambda x: x + 0.1, variables['params'])
  return module, {'params': params}


def affine(params, x):
  kernel, bias = (np.asarray(params[name], 'f8') for name in ('kernel', 'bias'))
  return x @ kernel + bias


def scalars_of(module, variables, z):
  """What is rounded, and the magnitude of a code."""
  x = affine(variables['params']['narrow'], np.asarray(z, 'f8'))
  if isinstance(module, LFQ):
    return x, 1.0
  norms = np.linalg.norm(x, axis=-1, keepdims=True)
  return x / norms, 1 / np.sqrt(BITS)


@pytest.mark.parametrize('cls', CLASSES)
def test_the_code_is_the_signs(cls, z):
  module, variables = started(cls)
  x, scale = scalars_of(module, variables, z)
  index = ((x > 0) * 2 ** np.arange(BITS)).sum(axis=-1)
  code = np.where(x > 0, scale, -scale)
  expected = affine(variables['params']['widen'], code)
  latent = run(module, variables, z, train=True)
  assert latent.codes.dtype == jnp.int32
  np.testing.assert_array_equal(latent.codes, index)
  np.testing.assert_allclose(latent.quantized, expected, atol=1e-5)
  codes = run(module, variables, z, method='encode')
  np.testing.assert_array_equal(codes, index)
  decoded = run(module, variables, codes, method='decode')
  np.testing.assert_array_equal(latent.quantized, decoded)


def test_codes_of_the_sphere_have_length_1():
  module = BSQ(D=D, bits=BITS)
  digits = jnp.arange(2**BITS)[:, None] >> jnp.arange(BITS)[None] & 1
  code = module._values(digits)
  np.testing.assert_allclose(jnp.linalg.norm(code, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
  'cls, temperature, gamma', [(LFQ, 2.0, 0.3), (BSQ, 0.5, 1.0)]
)
def test_losses(cls, temperature, gamma, z):
  """The entropy of sites over all codes; that of the mean over each bit."""
  module, variables = started(cls, temperature=temperature, gamma=gamma)
  latent = run(module, variables, z, train=True)
  x, scale = scalars_of(module, variables, z)
  x = x.reshape(-1, BITS)

  codes = np.array(list(itertools.product((-scale, scale), repeat=BITS)))
  p = np.exp(2 * x @ codes.T / temperature)
  p /= p.sum(axis=1, keepdims=True)
  of_each = np.mean(-np.sum(p * np.log(p), axis=1))
  ones = p.mean(axis=0) @ (codes > 0)
  of_mean = -np.sum(ones * np.log(ones) + (1 - ones) * np.log(1 - ones))
  np.testing.assert_allclose(
    latent.losses['entropy'], of_each - gamma * of_mean, rtol=1e-4, atol=1e-5
  )
  error = np.mean((x - np.where(x > 0, scale, -scale)) ** 2)
  np.testing.assert_allclose(latent.losses['commitment'], error, rtol=1e-5)
  assert set(latent.losses) == {'entropy', 'commitment'}


def test_the_gradient_of_lfq_is_that_of_the_linear_maps(z):
  module, variables = started(LFQ)
  c = standard_normal((B, SIDE, SIDE, D), seed=1)

  def total(z):
    return jnp.sum(run(module, variables, z, train=True).quantized * c)

  widen, narrow = (
    variables['params'][x]['kernel'] for x in ('widen', 'narrow')
  )
  gradient = jax.jit(jax.grad(total))(z)
  np.testing.assert_allclose(gradient, c @ widen.T @ narrow.T, atol=1e-5)


def test_the_gradient_of_bsq_is_that_of_the_sphere(z):
  """Across a scalar's direction, scaled by its length, and none along it."""
  module, variables = started(BSQ)
  c = standard_normal((B, SIDE, SIDE, D), seed=1)

  def total(z):
    return jnp.sum(run(module, variables, z, train=True).quantized * c)

  params = variables['params']
  x = affine(params['narrow'], np.asarray(z, 'f8'))
  length = np.linalg.norm(x, axis=-1, keepdims=True)
  u, g = x / length, np.asarray(c) @ np.asarray(params['widen']['kernel']).T
  across = (g - np.sum(g * u, axis=-1, keepdims=True) * u) / length
  expected = across @ np.asarray(params['narrow']['kernel']).T
  gradient = jax.jit(jax.grad(total))(z)
  np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


def test_losses_leave_the_way_back_alone(z):
  module, variables = started(LFQ, temperature=1.0)

  @functools.partial(jax.jit, static_argnums=0)
  def gradient(name, params, z):
    def loss(params, z):
      return run(module, {'params': params}, z, train=True).losses[name]

    return jax.grad(loss, (0, 1))(params, z)

  for name in ('entropy', 'commitment'):
    to_params, to_z = gradient(name, variables['params'], z)
    assert np.abs(to_z).max() > 0
    for x in to_params['narrow'].values():
      assert np.abs(x).max() > 0
    for x in to_params['widen'].values():
      np.testing.assert_array_equal(x, np.zeros(x.shape))


def test_the_mask_chooses_what_is_counted(z):
  module, variables = started(BSQ)
  mask = jnp.arange(B)[:, None, None] < jnp.full((1, SIDE, SIDE), 3)
  some = run(module, variables, z[:3], train=True)
  garbled = jnp.where(mask[..., None], z, 1e3)
  masked = run(module, variables, garbled, train=True, mask=mask)
  for part in ('losses', 'stats'):
    for name, value in getattr(some, part).items():
      np.testing.assert_allclose(
        getattr(masked, part)[name], value, rtol=1e-5, atol=1e-6
      )


@pytest.mark.parametrize('cls', CLASSES)
def test_extremes_are_finite(cls, z):
  module, variables = started(cls)
  # Without biases, the scalars of a zero are zeros.
  variables = {
    'params': {
      name: {**layer, 'bias': jnp.zeros_like(layer['bias'])}
      for name, layer in variables['params'].items()
    }
  }

  def total(z):
    latent = run(module, variables, z, train=True)
    total = jnp.sum(latent.quantized) + sum(latent.losses.values())
    return total, latent

  gradient = jax.jit(jax.grad(total, has_aux=True))
  for size in (0.0, 1e3):
    for x in jax.tree.leaves(gradient(jnp.full_like(z, size))):
      assert np.isfinite(x).all()


@pytest.mark.parametrize('cls, temperature', [(LFQ, 1.0), (BSQ, 0.2)])
def test_the_entropy_loss_makes_codes_diverse(cls, temperature):
  """Descending it alone, from signals that all share one code."""
  module, variables = started(cls, temperature=temperature)
  z = standard_normal((B, SIDE, SIDE, D)) * 0.2 + 1.0
  params = variables['params']

  @jax.jit
  def step(params):
    def loss(params):
      latent = run(module, {'params': params}, z, train=True)
      return latent.losses['entropy'], latent.stats['perplexity']

    gradient, perplexity = jax.grad(loss, has_aux=True)(params)
    move = jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient)
    return move, perplexity

  first = step(params)[1]
  for _ in range(100):
    params, perplexity = step(params)
  assert first < 4
  assert perplexity > 2 * first


def test_an_index_a_site_or_one_of_each_bit():
  few = LFQ(D=D, bits=18)
  assert few.symbols == 2**18
  assert few.bits_per_site == 18
  codes = jnp.array([[3, 2**18 - 1]])
  np.testing.assert_array_equal(few.indices(codes), codes)
  many = LFQ(D=D, bits=32)
  assert many.symbols == 64
  assert many.bits_per_site == 32
  bits = np.zeros((2, 32), int)
  bits[0, [0, 31]] = 1
  index = many.indices(jnp.array([1 + 2**31, 0], jnp.uint32))
  assert index.dtype == jnp.int32
  np.testing.assert_array_equal(index, 2 * np.arange(32)[None] + bits)


@pytest.mark.parametrize('bits, dtype', [(31, jnp.int32), (32, jnp.uint32)])
def test_many_bits_come_back(bits, dtype, z):
  module = LFQ(D=D, bits=bits)
  variables = drawn(module)
  latent = run(module, variables, z, train=False)
  assert latent.codes.dtype == dtype
  x = affine(variables['params']['narrow'], np.asarray(z, 'f8'))
  np.testing.assert_array_equal(latent.codes, (x > 0) @ 2 ** np.arange(bits))
  decoded = run(module, variables, latent.codes, method='decode')
  np.testing.assert_array_equal(latent.quantized, decoded)
