"""What every bottleneck keeps, held for each row of ROWS.

Most tests run op by op: the functions of `coding` are compiled, and all rows
share them. Shapes are chosen so that there are few.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks import BOTTLENECKS, Lasers
from lasers_jax.core import sharding
from tests.bottlenecks.rows import (
  BY_IMAGE,
  CODEBOOKS,
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
  some_of,
  start_row,
  stored,
  train,
  unit,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', params=ROWS)
def row(request) -> str:
  return request.param


@pytest.fixture(scope='module')
def case(row) -> Case:
  return start_row(row)


def test_every_bottleneck_has_a_row():
  assert {row['name'] for row in ROWS.values()} == set(BOTTLENECKS)


# Rows whose training codes or decodes in another way, by their definitions.
DRAWS = ('hypervq', 'entropy-widest', 'kl', 'kl-rounded', 'info_vae')
KEEPS = ('scq-kept', 'lista-kept')  # in evaluation alone
TRAINS_OTHERWISE = ('vq-alternated', 'vq-sinkhorn', *KEEPS, *DRAWS)


@pytest.fixture(scope='module', params=CODEBOOKS)
def book(request) -> Case:
  return start_row(request.param)


# Coding


def test_decoded_codes_are_the_forward_pass(case):
  codes = case.apply(case.z, method='encode')
  latent = case.apply(case.z, train=False)
  assert_same(latent.codes, codes)
  assert_same(latent.quantized, case.apply(codes, method='decode'))


def test_cropped_codes_are_those_of_so_many_sites(case):
  encode = functools.partial(case.apply, method='encode')
  p = case.module.patch_side
  codes = jax.tree.map(lambda x: np.asarray(x[0]), encode(case.z))
  found = case.module.crop(codes, 2 * p, 3 * p)
  expected = jax.eval_shape(encode, case.z[:1, : 2 * p, : 3 * p])
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  leaves = jax.tree.leaves(found), jax.tree.leaves(expected)
  for a, b in zip(*leaves, strict=True):
    assert a.shape == b.shape[1:]
  if case.module.symbols:
    indices = jax.eval_shape(case.module.indices, expected)
    assert indices.shape[1:3] == case.module.grid(2 * p, 3 * p)


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
  reverse = case.apply(some_of(z, slice(None, None, -1)), method='encode')
  assert_same(reverse, rows_of(codes, slice(None, None, -1)))
  for i in range(2):
    alone = case.apply(some_of(z, slice(i, i + 1)), method='encode')
    assert_same(alone, rows_of(codes, slice(i, i + 1)))


@pytest.mark.parametrize('lead', [(), (2, 4)])
def test_leading_dimensions_are_free(case, row, lead):
  if row in BY_IMAGE and not lead:
    pytest.skip('images on top of each other are another image')
  together = case.apply(case.z, train=False)
  # Without any, the images stand on top of each other.
  b, height, width, d = case.z.shape
  shape = (*lead, height, width, d) if lead else (b * height, width, d)
  z = jnp.asarray(np.asarray(case.z).reshape(shape))
  for training in (False, True):
    latent = case.apply(z, train=training)
    assert latent.quantized.shape == shape
    p = case.module.patch_side
    sites = *shape[:-3], shape[-3] // p, shape[-2] // p
    if row in BY_IMAGE:
      sites = lead  # some sites have no codes of their own
    if not training or row not in TRAINS_OTHERWISE:
      assert_same(flat(latent.codes), flat(together.codes))
    for x in jax.tree.leaves(latent.codes):
      assert x.shape[: len(sites)] == sites
  quantized = case.apply(z, train=False).quantized
  assert_same(flat(quantized), flat(together.quantized))


def test_bfloat16_is_coded_in_float32(case):
  z = case.z.astype(jnp.bfloat16)
  for training in (False, True):
    latent = case.apply(z, train=training)
    exact = case.apply(z.astype(jnp.float32), train=training)
    assert_same(latent.codes, exact.codes)
    assert_same(latent.quantized, exact.quantized.astype(jnp.bfloat16))


def test_zero_is_coded_without_nan(case):
  latent, codebook = train(case, jnp.zeros_like(case.z))
  leaves = jax.tree.leaves((latent, codebook))
  assert all(np.isfinite(x).all() for x in leaves)


def test_indices_are_below_symbols(case, row):
  symbols = case.module.symbols
  assert (symbols == 0) == (case.module.bits_per_site is None)
  if not symbols:
    pytest.skip('a continuous code has none')
  codes = case.apply(case.z, method='encode')
  # Without variables, as evaluation does.
  indices = np.asarray(case.module.indices(codes))
  assert indices.dtype == np.int32
  assert indices.min() >= 0
  assert indices.max() < symbols
  share = 1 / 2 if row in CODEBOOKS else 1 / 3
  assert len(np.unique(indices)) > share * min(symbols, K)


def test_atoms_are_squares_of_sites(case):
  p = case.module.patch_side
  atoms = case.apply(method='atoms')
  assert atoms.shape[1:] == (p, p, case.module.D)
  assert np.isfinite(atoms).all()


def test_there_is_an_atom_for_each_index(book):
  assert len(book.apply(method='atoms')) == K == book.module.symbols


@pytest.mark.parametrize(
  'bits, fields',
  [
    # log2 of C(512, 5) is 38.06.
    (39 + 5 * 8, {'name': 'lasers', 'K': 512, 'S': 5}),
    (38 + 5 * 8, {'name': 'lasers', 'K': 500, 'S': 5}),
    ((39 + 5 * 8) / 4, {'name': 'lasers', 'K': 512, 'S': 5, 'patch': 2}),
    (
      32,
      {
        'name': 'lasers',
        'K': 566,
        'S': 4,
        'pursuit': 'rounded',
        'coefficient_bits': 0,
      },
    ),
    (
      39 + 5 * 32,
      {'name': 'lasers', 'K': 512, 'S': 5, 'coefficient_bits': None},
    ),
    (9, {'name': 'vq', 'K': 512}),
    (9, {'name': 'vq', 'K': 500}),
    (10, {'name': 'vq', 'K': 513}),
  ],
)
def test_bits_per_site(bits, fields):
  assert build(**fields).bits_per_site == bits


def test_bits_are_those_of_the_codes(case, row):
  """The nominal bits leave room for every integer that is stored."""
  if row in BY_IMAGE or isinstance(case.module, Lasers):
    pytest.skip('integers in ascending order are a set, of fewer bits')
  if case.module.bits_per_site is None:
    pytest.skip('the code is continuous')
  codes = jax.device_get(jax.tree.leaves(case.apply(case.z, method='encode')))
  sites = case.z[..., 0].size
  bits = sum(
    x.size * (32 if x.dtype == np.float32 else int(np.ptp(x)).bit_length())
    for x in codes
  )
  assert bits / sites <= case.module.bits_per_site


# Training


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
  mask[:, 2:] = False  # whole patches
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
