"""What every bottleneck keeps, held for each row of ROWS.

Most tests run op by op: the functions of `coding` are compiled, and all rows
share them. Shapes are chosen so that there are few.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks import BOTTLENECKS
from lasers_jax.training import sharding
from tests.bottlenecks.rows import (
  ROWS,
  UNLIKE,
  Case,
  K,
  assert_close,
  assert_same,
  build,
  flat,
  normal,
  norms,
  rows_of,
  shape_of,
  signals_of,
  start_row,
  stored,
  train,
  unit,
)


@pytest.fixture(scope='module', params=ROWS)
def case(request) -> Case:
  return start_row(request.param)


def test_every_bottleneck_has_a_row():
  assert {row['name'] for row in ROWS.values()} == set(BOTTLENECKS)


# Coding


def test_decoded_codes_are_the_forward_pass(case):
  codes = case.apply(case.z, method='encode')
  latent = case.apply(case.z, train=False)
  assert_same(latent.codes, codes)
  assert_same(latent.quantized, case.apply(codes, method='decode'))


@pytest.mark.parametrize('row', UNLIKE['compiled'])
def test_decoded_codes_are_the_forward_pass_when_compiled(row):
  case = start_row(row)
  module, variables = case.module, case.variables
  forward = jax.jit(functools.partial(module.apply, train=False))
  encode = jax.jit(functools.partial(module.apply, method='encode'))
  decode = jax.jit(functools.partial(module.apply, method='decode'))
  codes, latent = encode(variables, case.z), forward(variables, case.z)
  assert_same(latent.codes, codes)
  assert_same(latent.quantized, decode(variables, codes))

  by_op = case.apply(case.z, train=False)
  assert_close(codes, by_op.codes)
  assert_close(latent.quantized, by_op.quantized)


def test_a_site_is_coded_alike_whatever_comes_along(case):
  # More sites than are coded at once.
  z = normal(shape_of(case.module, 2, 24, 48), seed=4)
  codes = case.apply(z, method='encode')
  reverse = case.apply(z[::-1], method='encode')
  assert_same(reverse, rows_of(codes, slice(None, None, -1)))
  for i in range(2):
    alone = case.apply(z[i : i + 1], method='encode')
    assert_same(alone, rows_of(codes, slice(i, i + 1)))


@pytest.mark.parametrize('lead', [(), (8,), (2, 4)])
def test_leading_dimensions_are_free(case, lead):
  together = case.apply(case.z, train=False)
  # Without any, the images stand on top of each other.
  b, height, width, d = case.z.shape
  shape = (*lead, height, width, d) if lead else (b * height, width, d)
  z = case.z.reshape(shape)
  for training in (False, True):
    latent = case.apply(z, train=training)
    assert latent.quantized.shape == shape
    p = case.module.patch_side
    sites = *shape[:-3], shape[-3] // p, shape[-2] // p
    assert_same(flat(latent.codes), flat(together.codes))
    for x in jax.tree.leaves(latent.codes):
      assert x.shape[: len(sites)] == sites
  quantized = case.apply(z, train=False).quantized
  assert_same(flat(quantized), flat(together.quantized))


def test_bfloat16_is_coded_in_float32(case):
  z = case.z.astype(jnp.bfloat16)
  exact = case.apply(z.astype(jnp.float32), train=False)
  for training in (False, True):
    latent = case.apply(z, train=training)
    assert latent.quantized.dtype == jnp.bfloat16
    assert_same(latent.codes, exact.codes)
  quantized = case.apply(z, train=False).quantized
  assert_same(quantized, exact.quantized.astype(jnp.bfloat16))


def test_zero_is_coded_without_nan(case):
  latent, codebook = train(case, jnp.zeros_like(case.z))
  leaves = jax.tree.leaves((latent, codebook))
  assert all(np.isfinite(x).all() for x in leaves)


def test_indices_name_atoms(case):
  codes = case.apply(case.z, method='encode')
  indices = case.apply(codes, method='indices')
  assert indices.dtype == jnp.int32
  assert 0 <= indices.min() and indices.max() < K
  assert len(np.unique(indices)) > K / 2


def test_atoms_are_squares_of_sites(case):
  p = case.module.patch_side
  assert case.apply(method='atoms').shape == (K, p, p, case.module.D)


@pytest.mark.parametrize(
  'bits, fields',
  [
    (5 * (9 + 8), {'name': 'lasers', 'K': 512, 'S': 5}),
    (5 * (9 + 8), {'name': 'lasers', 'K': 500, 'S': 5}),
    (5 * (9 + 8) / 4, {'name': 'lasers', 'K': 512, 'S': 5, 'patch': 2}),
    (
      5 * (9 + 32),
      {'name': 'lasers', 'K': 512, 'S': 5, 'coefficient_bits': None},
    ),
    (9, {'name': 'vq', 'K': 512}),
    (9, {'name': 'vq', 'K': 500}),
    (10, {'name': 'vq', 'K': 513}),
  ],
)
def test_bits_per_site(bits, fields):
  assert build(**fields).bits_per_site == bits


def test_bits_are_those_of_the_codes(case):
  """The nominal bits leave room for every integer that is stored."""
  codes = jax.tree.leaves(case.apply(case.z, method='encode'))
  sites = case.z[..., 0].size
  bits = sum(
    x.size * (32 if x.dtype == jnp.float32 else int(np.ptp(x)).bit_length())
    for x in codes
  )
  assert bits / sites <= case.module.bits_per_site


# Training


def test_evaluation_writes_nothing(case):
  _, updates = case.apply(case.z, train=False, mutable=['codebook'])
  assert_same(updates['codebook'], case.variables['codebook'])


def test_training_writes_the_codebook_and_only_that(case):
  _, updates = case.apply(case.z, train=True, mutable=['params', 'codebook'])
  before = case.variables['codebook']['use']
  assert np.any(updates['codebook']['use'] != before)
  if 'params' in case.variables:
    assert_same(updates['params'], case.variables['params'])


def test_training_codes_as_evaluation_does(case):
  latent, _ = train(case, case.z)
  plain = case.apply(case.z, train=False)
  assert_same(latent.codes, plain.codes)
  # Coefficients may be decoded before they are rounded.
  np.testing.assert_allclose(latent.quantized, plain.quantized, atol=0.1)


def test_straight_through_forwards_the_very_codes(case):
  if getattr(case.module, 'coefficient_bits', None) is not None:
    pytest.skip('training decodes coefficients before they are rounded')
  latent = case.apply(case.z, train=True)
  assert_same(latent.quantized, case.apply(latent.codes, method='decode'))


def test_straight_through_passes_the_gradient_unchanged(case):
  if getattr(case.module, 'gradient', 'straight_through') == 'refit':
    pytest.skip('it passes the gradient of the fit')
  c = normal(case.z.shape, seed=5)

  def total(z):
    return jnp.sum(case.apply(z, train=True).quantized * c)

  assert_same(jax.grad(total)(case.z), c)


def test_losses_reach_only_what_they_are_for(case):
  def losses(params, z):
    variables = {**case.variables, 'params': params}
    return case.module.apply(variables, z, train=True).losses

  params = case.variables.get('params', {})
  learns = case.module.learning in ('gradient', 'loss')
  assert bool(params) == learns
  values, pull = jax.vjp(losses, params, case.z)
  for name in values:
    one = {other: jnp.float32(other == name) for other in values}
    to_params, to_z = (
      any(np.any(x != 0) for x in jax.tree.leaves(g)) for g in pull(one)
    )
    to_encoder = name == 'commitment'
    assert (to_params, to_z) == (learns and not to_encoder, to_encoder)
  assert not learns or len(values) == 2


def test_initialize_starts_from_the_data(case):
  before = case.module.apply(case.drawn, method='atoms')
  atoms = case.apply(method='atoms').reshape(K, -1)
  assert np.all(np.abs(atoms - before.reshape(K, -1)).max(axis=1) > 0.1)
  # Codes are signals, and atoms have the direction of one.
  signals = signals_of(case)
  if 'codes' in case.variables[case.home]:
    distances = np.linalg.norm(atoms[:, None] - signals[None], axis=-1)
    assert np.all(distances.min(axis=1) < 0.3)
    return
  np.testing.assert_allclose(norms(stored(case)), 1, rtol=1e-5)
  cosines = unit(atoms) @ unit(signals).T
  assert np.all(cosines.max(axis=1) > 0.99)



# Devices


@pytest.mark.parametrize('row', UNLIKE['devices'])
def test_devices_do_not_change_the_numbers(row):
  """Sites are split over `data`, atoms over `model`."""
  case = start_row(row)

  def step(variables, z):
    latent, updates = case.module.apply(
      variables, z, train=True, mutable=['codebook']
    )
    return latent.codes, latent.losses, updates['codebook']

  mesh = sharding.make_mesh(data=4, model=2)
  places = sharding.state_shardings(
    {'bottleneck': case.variables}, mesh, case.module.K
  )['bottleneck']
  codes, losses, codebook = step(case.variables, case.z)
  sharded_step = jax.jit(
    step, in_shardings=(places, sharding.batch_sharding(mesh))
  )
  sharded = sharded_step(
    jax.device_put(case.variables, places),
    jax.device_put(case.z, sharding.batch_sharding(mesh)),
  )
  assert 'model' in str(jax.tree.leaves(places))
  assert_close(sharded, (codes, losses, codebook))
