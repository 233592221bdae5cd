"""What every bottleneck keeps in training, and on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks import BOTTLENECKS, Lasers
from lasers_jax.core import sharding
from tests.bottlenecks.rows import (
  BY_IMAGE,
  CODEBOOKS,
  DRAWS,
  KEEPS,
  ROWS,
  TRAINS_OTHERWISE,
  UNLIKE,
  K,
  assert_close,
  assert_same,
  normal,
  norms,
  signals_of,
  some_of,
  start_row,
  stored,
  train,
  unit,
)

pytestmark = pytest.mark.slow


def test_evaluation_writes_nothing(case):
  _, updates = case.apply(case.z, train=False, mutable=['codebook'])
  assert_same(updates.get('codebook', {}), case.variables.get('codebook', {}))


def test_training_does_not_write_parameters(case):
  _, updates = case.apply(case.z, train=True, mutable=['params', 'codebook'])
  if 'params' in case.variables:
    assert_same(updates['params'], case.variables['params'])


def test_training_follows_the_use_of_atoms(book):
  _, codebook = train(book, book.z)
  assert np.any(codebook['use'] != book.variables['codebook']['use'])


def test_training_codes_as_evaluation_does(case, row):
  if row in TRAINS_OTHERWISE:
    pytest.skip('training codes or decodes in another way, by its definition')
  latent, _ = train(case, case.z)
  plain = case.apply(case.z, train=False)
  assert_same(latent.codes, plain.codes)
  np.testing.assert_allclose(latent.quantized, plain.quantized, atol=1e-4)


def test_the_decoder_receives_the_very_codes_in_training(case, row):
  if row in ('vq-alternated', *DRAWS[1:], *KEEPS):
    pytest.skip('training decodes moved codes, all weights, or a draw')
  latent = case.apply(case.z, train=True)
  assert_same(latent.quantized, case.apply(latent.codes, method='decode'))


PASS_THE_GRADIENT = [
  *(x for x in CODEBOOKS if x != 'vq-rotation'),
  'simvq',
  'cvq',
  'lattice',
  'priced',
  'priced-extras',
]
PASS_THE_GRADIENT.remove('vq-cosine')  # through the normalization


@pytest.mark.parametrize('row', PASS_THE_GRADIENT)
def test_straight_through_passes_the_gradient_unchanged(row):
  case = start_row(row)
  c = normal(case.z.shape, seed=5)

  def total(z):
    return jnp.sum(case.apply(z, train=True).quantized * c)

  assert_same(jax.grad(total)(case.z), c)


def test_losses_reach_only_what_they_are_for(case):
  """The commitment reaches the encoder alone; the codebook loss, the codes."""

  def losses(params, z):
    variables = {**case.variables, 'params': params}
    return case._replace(variables=variables).apply(z, train=True).losses

  params = case.variables.get('params', {})
  values, pull = jax.vjp(losses, params, case.z)
  for name in values:
    one = {other: jnp.float32(other == name) for other in values}
    to_params, to_z = (
      any(x.any() for x in jax.tree.leaves(g))
      for g in jax.device_get(pull(one))
    )
    # These map z first.
    if name == 'commitment' and not {'narrow', 'score'} & {*params}:
      assert to_z
      assert not to_params
    if name in ('codebook', 'dictionary'):
      assert to_params == bool(params)
      assert not to_z


def test_codebooks_have_the_losses_of_their_way_to_learn(book):
  params, learning = book.variables.get('params', {}), book.module.learning
  assert bool(params) == (learning in ('gradient', 'loss'))
  learned = 'dictionary' if isinstance(book.module, Lasers) else 'codebook'
  expected = {'commitment', learned}
  if learning in ('ema', 'alternated'):
    expected = {'commitment'}
  assert book.apply(book.z, train=True).losses.keys() == expected


def test_gradients_are_finite(case):
  def total(variables, z):
    latent = case._replace(variables=variables).apply(z, train=True)
    return jnp.sum(latent.quantized**2) + sum(latent.losses.values())

  def of_params(params, z):
    return total({**case.variables, 'params': params}, z)

  params = case.variables.get('params', {})
  for z in (case.z, jnp.zeros_like(case.z)):
    found = jax.grad(of_params, (0, 1))(params, z)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_masked_sites_count_for_nothing(case, row):
  mask = np.ones(case.z.shape[:-1], bool)
  mask[:, 2:] = False
  z = np.asarray(case.z)
  other = jnp.asarray(np.where(mask[..., None], z, 7 * z[::-1] + 1))
  found = [
    case.apply(z, train=True, mask=jnp.asarray(mask), mutable=['codebook'])
    for z in (case.z, other)
  ]
  (one, codebook), (two, other_codebook) = found
  assert_close((one.losses, one.stats), (two.losses, two.stats))
  assert_close(codebook, other_codebook)
  if row in BY_IMAGE:
    return  # whether a site is kept depends on the others
  # They are coded all the same, and the rest as if they were not there.
  if row not in TRAINS_OTHERWISE:
    assert_same(one.codes, case.apply(case.z, method='encode'))
  # Losses that draw have as many draws as there are sites.
  if row in (*DRAWS, 'entropy', 'wae'):
    return
  alone, alone_codebook = case.apply(
    some_of(case.z, np.s_[:, :2]), train=True, mutable=['codebook']
  )
  assert_close((alone.losses, alone.stats), (one.losses, one.stats))
  if row != 'lasers-online':  # its statistics are means over all
    assert_close(alone_codebook, codebook)


def test_initialize_starts_from_the_data(book):
  case, before = book, book.module.apply(book.drawn, method='atoms')
  atoms = case.apply(method='atoms').reshape(K, -1)
  assert np.all(np.abs(atoms - before.reshape(K, -1)).max(axis=1) > 0.1)
  # Codes are signals, and atoms have the direction of one.
  signals = signals_of(case)
  if getattr(case.module, 'start', 'data') == 'kmeans':
    return  # vq_test.py looks at that
  if 'codes' in case.variables[case.home]:
    distances = np.linalg.norm(atoms[:, None] - signals[None], axis=-1)
    assert np.all(distances.min(axis=1) < 0.3)
    return
  np.testing.assert_allclose(norms(stored(case)), 1, rtol=1e-5)
  mean = case.variables['codebook']['mean']
  cosines = unit(stored(case)) @ unit(signals - mean[None]).T
  assert np.all(cosines.max(axis=1) > 0.99)


# Devices


def test_every_bottleneck_is_tried_on_several_devices():
  assert {ROWS[x]['name'] for x in UNLIKE['devices']} == set(BOTTLENECKS)


@pytest.mark.parametrize('row', UNLIKE['devices'])
def test_devices_do_not_change_the_numbers(row):
  """Sites are split over `data`, atoms over `model`."""
  case = start_row(row)

  def step(variables, z):
    latent, updates = case.module.apply(
      variables,
      z,
      train=True,
      mutable=['codebook'],
      rngs={'bottleneck': jax.random.key(7)},
    )
    return latent.codes, latent.losses, updates.get('codebook', {})

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
  split = any('model' in place.spec for place in jax.tree.leaves(places))
  k = case.module.K
  shapes = [x.shape for x in jax.tree.leaves(case.variables)]
  assert split == any(k in shape for shape in shapes if k)
  assert_close(sharded, (codes, losses, codebook))
