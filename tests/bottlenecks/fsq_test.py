import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks.fsq import FSQ
from tests.bottlenecks.rows import drawn, run, standard_normal

B, SIDE, D = 4, 4, 8
LEVELS = (4, 3, 5)


@pytest.fixture(scope='module')
def z():
  return standard_normal((B, SIDE, SIDE, D))


@functools.cache
def started(levels=LEVELS):
  module = FSQ(D=D, levels=levels)
  variables = drawn(module)
  # No bias is zero once it has learned.
  params = jax.tree.map(lambda x: x + 0.1, variables['params'])
  return module, {'params': params}


def affine(params, x):
  kernel, bias = (np.asarray(params[name], 'f8') for name in ('kernel', 'bias'))
  return x @ kernel + bias


def test_the_forward_pass_is_that_of_the_paper(z):
  module, variables = started()
  latent = run(module, variables, z, train=True)

  scalars = affine(variables['params']['narrow'], np.asarray(z, 'f8'))
  levels = np.array(LEVELS)
  half = (levels - 1) * (1 - 1e-3) / 2
  offset = np.where(levels % 2 == 0, 0.5, 0.0)
  bounded = np.tanh(scalars + np.tan(offset / half)) * half - offset
  rounded = np.round(bounded)
  basis = np.concatenate([[1], np.cumprod(levels[:-1])])
  index = ((rounded + levels // 2) * basis).sum(axis=-1)
  np.testing.assert_array_equal(latent.codes, index)
  assert latent.codes.dtype == jnp.int32
  expected = affine(variables['params']['widen'], rounded / (levels // 2))
  np.testing.assert_allclose(latent.quantized, expected, atol=1e-5)
  assert latent.losses == {}

  p = np.bincount(index.astype(int).ravel(), minlength=60) / index.size
  stats = latent.stats
  np.testing.assert_allclose(stats['usage'], np.mean(p > 0))
  entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
  np.testing.assert_allclose(stats['perplexity'], np.exp(entropy), rtol=1e-5)
  error = np.sum((expected - z) ** 2) / np.sum(np.asarray(z) ** 2)
  np.testing.assert_allclose(stats['relative_error'], error, rtol=1e-5)


def test_decoded_codes_are_the_forward_pass_in_training(z):
  module, variables = started()
  codes = run(module, variables, z, method='encode')
  decoded = run(module, variables, codes, method='decode')
  latent = run(module, variables, z, train=True)
  np.testing.assert_array_equal(latent.codes, codes)
  np.testing.assert_array_equal(latent.quantized, decoded)


def test_the_gradient_is_that_of_the_bound(z):
  """Straight through the rounding alone, and by hand through the rest."""
  module, variables = started()
  c = standard_normal((B, SIDE, SIDE, D), seed=1)

  def total(z):
    return jnp.sum(run(module, variables, z, train=True).quantized * c)

  params, levels = variables['params'], np.array(LEVELS)
  half = (levels - 1) * (1 - 1e-3) / 2
  shift = np.tan(np.where(levels % 2 == 0, 0.5, 0.0) / half)
  scalars = affine(params['narrow'], np.asarray(z, 'f8'))
  slope = half / np.cosh(scalars + shift) ** 2 / (levels // 2)
  widen, narrow = (np.asarray(params[x]['kernel']) for x in ('widen', 'narrow'))
  expected = (np.asarray(c) @ widen.T * slope) @ narrow.T
  gradient = jax.jit(jax.grad(total))(z)
  np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_the_linear_maps_learn_from_the_decoder(z):
  module, variables = started()
  c = standard_normal((B, SIDE, SIDE, D), seed=1)

  def total(params):
    latent = run(module, {'params': params}, z, train=True)
    return jnp.sum(latent.quantized * c)

  gradients = jax.jit(jax.grad(total))(variables['params'])
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))


def test_the_mask_chooses_what_is_counted(z):
  module, variables = started()
  mask = jnp.arange(B)[:, None, None] < jnp.full((1, SIDE, SIDE), 3)
  some = run(module, variables, z[:3], train=True).stats
  garbled = jnp.where(mask[..., None], z, 1e3)
  masked = run(module, variables, garbled, train=True, mask=mask).stats
  for name in some:
    np.testing.assert_allclose(masked[name], some[name], rtol=1e-5)


def test_extremes_are_finite(z):
  module, variables = started()

  def total(z):
    latent = run(module, variables, z, train=True)
    return jnp.sum(latent.quantized), latent.quantized

  gradient = jax.jit(jax.grad(total, has_aux=True))
  for size in (0, 1e3, 1e30):
    for x in gradient(jnp.full_like(z, size)):
      assert np.isfinite(x).all()


def test_an_index_a_site_or_one_of_each_scalar():
  few = FSQ(D=D, levels=(2**9, 2**9))
  assert few.symbols == 2**18
  codes = jnp.array([[5]])
  np.testing.assert_array_equal(few.indices(codes), codes)

  many = FSQ(D=D, levels=(2**9, 2**9, 3))
  assert many.symbols == 2**10 + 3
  codes = jnp.array([[7 + 2**9 * (300 + 2**9 * 2), 0]])
  np.testing.assert_array_equal(
    many.indices(codes),
    [[[7, 512 + 300, 1024 + 2], [0, 512, 1024]]],
  )


@pytest.mark.parametrize(
  'levels, bits', [((8, 5, 5, 5), 10), ((2, 2), 2), ((5,), 3), ((2,) * 32, 32)]
)
def test_bits_per_site(levels, bits):
  module = FSQ(D=D, levels=levels)
  module.check()
  assert module.bits_per_site == bits


def test_atoms_are_what_a_scalar_alone_adds():
  module, variables = started((2, 3, 5))
  atoms = run(module, variables, method='atoms')
  kernel = variables['params']['widen']['kernel']
  assert atoms.shape == (3, 1, 1, D)
  np.testing.assert_allclose(atoms[:, 0, 0], -kernel, atol=1e-6)


def test_check():
  with pytest.raises(ValueError, match='must be at most 2.32, got 6442450944'):
    FSQ(D=D, levels=(2,) * 31 + (3,)).check()
