import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.lattice import Lattice
from tests.bottlenecks.rows import drawn, run

B, SIDE, D, K = 4, 4, 8, 16
N = B * SIDE * SIDE


@pytest.fixture(scope='module')
def z():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


@functools.cache
def started(**fields):
  module = Lattice(**{'D': D, 'initial_points': K, **fields})
  return module, drawn(module)


def with_basis(b):
  """Variables of which the spacings are b."""
  b = np.asarray(b, 'f8') - 1e-4
  return {'params': {'spacing': jnp.asarray(np.log(np.expm1(b)), 'f4')}}


def basis_of(variables):
  spacing = np.asarray(variables['params']['spacing'], 'f8')
  return np.log1p(np.exp(spacing)) + 1e-4


def test_the_nearest_point_within_the_limit(z):
  module, variables = started(limit=2)
  b = basis_of(variables)
  latent = run(module, variables, z, train=True)

  # Babai's rounding finds the nearest point, since the axes are orthogonal.
  multiples = np.arange(-2, 3)
  points = b[:, None] * multiples[None]
  distance = np.abs(np.asarray(z, 'f8')[..., None] - points)
  nearest = multiples[distance.argmin(axis=-1)]
  np.testing.assert_array_equal(latent.codes, nearest)
  assert latent.codes.dtype == jnp.int32
  assert np.abs(latent.codes).max() == 2
  np.testing.assert_allclose(latent.quantized, b * nearest, rtol=1e-5)


def test_decoded_codes_are_the_forward_pass_in_training(z):
  module, variables = started()
  codes = run(module, variables, z, method='encode')
  decoded = run(module, variables, codes, method='decode')
  latent = run(module, variables, z, train=True)
  np.testing.assert_array_equal(latent.codes, codes)
  np.testing.assert_array_equal(latent.quantized, decoded)


def test_losses_and_stats(z):
  module, variables = started(limit=2)
  latent = run(module, variables, z, train=True)
  error = np.mean((np.asarray(latent.quantized) - z) ** 2)
  b, widest = basis_of(variables), 1 / (K ** (1 / D) - 1)
  expected = {'codebook': error, 'commitment': error, 'size': -np.sum(b)}
  assert np.all(b < widest)
  assert set(latent.losses) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(latent.losses[name], value, rtol=1e-5)
  relative = error / np.mean(np.asarray(z) ** 2)
  stats = latent.stats
  np.testing.assert_allclose(stats['relative_error'], relative, rtol=1e-5)

  indices = run(module, variables, latent.codes, method='indices')
  assert indices.dtype == jnp.int32
  assert indices.shape == z.shape
  assert module.symbols == D * 5
  digits = np.asarray(latent.codes) + 2
  np.testing.assert_array_equal(indices, digits + 5 * np.arange(D))
  p = np.bincount(np.asarray(indices).ravel(), minlength=5 * D) / z.size
  np.testing.assert_allclose(stats['usage'], np.mean(p > 0))
  entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
  np.testing.assert_allclose(stats['perplexity'], np.exp(entropy), rtol=1e-5)


def test_the_gradient_of_the_codebook_loss(z):
  """By hand: 2/(ND) sum_n k (b k - z), then through the softplus."""
  module, variables = started(limit=2)

  def loss(params):
    return run(module, {'params': params}, z, train=True).losses['codebook']

  gradient = jax.jit(jax.grad(loss))(variables['params'])['spacing']
  b = basis_of(variables)
  signals = np.asarray(z, 'f8').reshape(N, D)
  k = np.clip(np.round(signals / b), -2, 2)
  to_b = 2 / (N * D) * np.sum(k * (b * k - signals), axis=0)
  to_spacing = to_b * (1 - np.exp(-(b - 1e-4)))
  assert np.abs(to_b).min() > 0
  np.testing.assert_allclose(gradient, to_spacing, rtol=1e-3, atol=1e-6)


def test_losses_reach_only_what_they_are_for(z):
  module, variables = started()

  @functools.partial(jax.jit, static_argnums=0)
  def gradient(name, params, z):
    def loss(params, z):
      return run(module, {'params': params}, z, train=True).losses[name]

    return jax.grad(loss, (0, 1))(params, z)

  for name in ('codebook', 'size', 'commitment'):
    to_params, to_z = gradient(name, variables['params'], z)
    encoder = name == 'commitment'
    assert np.any(to_z != 0) == encoder
    assert np.any(to_params['spacing'] != 0) != encoder


def test_straight_through(z):
  module, variables = started()
  c = jnp.asarray(np.random.default_rng(1).standard_normal(z.shape), 'f4')

  def total(params, z):
    latent = run(module, {'params': params}, z, train=True)
    return jnp.sum(latent.quantized * c)

  to_params, to_z = jax.jit(jax.grad(total, (0, 1)))(variables['params'], z)
  np.testing.assert_array_equal(to_z, c)
  np.testing.assert_array_equal(to_params['spacing'], np.zeros(D))


def test_the_size_term_stops_at_the_widest_spacing(z):
  """Descended alone: it comes there and no further, and stays finite."""
  module, variables = started()

  def size(params):
    return run(module, {'params': params}, z, train=True).losses['size']

  step = jax.jit(jax.grad(size))
  params = variables['params']
  for _ in range(60):
    gradient = step(params)
    params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
  b = basis_of({'params': params})
  assert np.all(b >= module.widest * 0.999)
  assert np.all(b <= module.widest + 0.5)
  np.testing.assert_allclose(size(params), -D * module.widest, rtol=1e-5)
  np.testing.assert_array_equal(step(params)['spacing'], np.zeros(D))


def test_the_codebook_loss_finds_the_spacing_of_the_data():
  """Signals that are multiples of one spacing a channel, up to the limit."""
  b = np.linspace(0.4, 1.2, D)
  k = np.random.default_rng(0).integers(-3, 4, (B, SIDE, SIDE, D))
  module, z = Lattice(D=D, initial_points=K, limit=3), jnp.asarray(b * k, 'f4')

  @jax.jit
  def step(params):
    def loss(params):
      return run(module, {'params': params}, z, train=True).losses['codebook']

    gradient = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient)

  params = with_basis(1.1 * b)['params']
  for _ in range(200):
    params = step(params)
  np.testing.assert_allclose(basis_of({'params': params}), b, rtol=1e-3)


def test_the_start_is_that_of_the_paper():
  """U(0, B) but for the lowest hundredth of it."""
  module = Lattice(D=4000, initial_points=512)
  b = basis_of(drawn(module))
  widest = 1 / (512 ** (1 / 4000) - 1)
  assert 0 < b.min() < 0.02 * widest
  assert 0.99 * widest < b.max()
  assert b.max() <= widest * 1.001
  np.testing.assert_allclose(b.mean(), 0.505 * widest, rtol=0.03)
  np.testing.assert_allclose(b.std(), 0.99 * widest / 12**0.5, rtol=0.03)


def test_the_mask_chooses_what_is_counted(z):
  module, variables = started()
  mask = jnp.arange(B)[:, None, None] < jnp.full((1, SIDE, SIDE), 3)
  some = run(module, variables, z[:3], train=True)
  garbled = jnp.where(mask[..., None], z, 1e3)
  masked = run(module, variables, garbled, train=True, mask=mask)
  for part in ('losses', 'stats'):
    for name, value in getattr(some, part).items():
      np.testing.assert_allclose(getattr(masked, part)[name], value, rtol=1e-5)


def test_extremes_are_finite(z):
  module = Lattice(D=D, initial_points=K)

  def total(params, z):
    latent = run(module, {'params': params}, z, train=True)
    return jnp.sum(latent.quantized), latent

  gradient = jax.jit(jax.grad(total, (0, 1), has_aux=True))
  for size, spacing in itertools.product((0, 1e3, 1e37), (-1e3, 0, 50)):
    params = {'spacing': jnp.full(D, spacing, 'f4')}
    grads, latent = gradient(params, jnp.full_like(z, size))
    for x in jax.tree.leaves((grads, latent.quantized)):
      assert np.isfinite(x).all()
    assert np.abs(latent.codes).max() <= 7
    if size < 1e30:  # beyond, the squares of the losses overflow
      assert all(np.isfinite(x) for x in latent.losses.values())


@pytest.mark.parametrize('limit, bits', [(1, 2), (3, 3), (4, 4), (7, 4)])
def test_bits_per_site(limit, bits):
  assert Lattice(D=D, initial_points=K, limit=limit).bits_per_site == D * bits


def test_atoms_are_steps_along_the_channels():
  module, variables = started()
  atoms = run(module, variables, method='atoms')
  assert atoms.shape == (D, 1, 1, D)
  np.testing.assert_allclose(
    atoms[:, 0, 0], np.diag(basis_of(variables)), rtol=1e-5
  )
