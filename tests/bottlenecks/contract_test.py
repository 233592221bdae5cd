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
from tests.bottlenecks.rows import (
  BY_IMAGE,
  CODEBOOKS,
  ROWS,
  TRAINS_OTHERWISE,
  UNLIKE,
  K,
  assert_close,
  assert_same,
  build,
  flat,
  normal,
  rows_of,
  shape_of,
  some_of,
  start_row,
  train,
)

pytestmark = pytest.mark.slow


def test_every_bottleneck_has_a_row():
  assert {row['name'] for row in ROWS.values()} == set(BOTTLENECKS)


# Coding


def test_decoded_codes_are_the_forward_pass(case):
  codes = case.apply(case.z, method='encode')
  latent = case.apply(case.z, train=False)
  assert_same(latent.codes, codes)
  assert_same(latent.quantized, case.apply(codes, method='decode'))


def test_cropped_codes_are_those_of_so_many_sites(case):
  encode = functools.partial(case.apply, method='encode')
  codes = jax.tree.map(lambda x: np.asarray(x[0]), encode(case.z))
  found = case.module.crop(codes, 2, 3)
  expected = jax.eval_shape(encode, case.z[:1, :2, :3])
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  leaves = jax.tree.leaves(found), jax.tree.leaves(expected)
  for a, b in zip(*leaves, strict=True):
    assert a.shape == b.shape[1:]
  if case.module.symbols:
    indices = jax.eval_shape(case.module.indices, expected)
    assert indices.shape[1:3] == case.module.grid(2, 3)


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
    sites = shape[:-1]
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
  atoms = case.apply(method='atoms')
  assert atoms.shape[1:] == (1, 1, case.module.D)
  assert np.isfinite(atoms).all()


def test_there_is_an_atom_for_each_index(book):
  assert len(book.apply(method='atoms')) == K == book.module.symbols


@pytest.mark.parametrize(
  'bits, fields',
  [
    # log2 of C(512, 5) is 38.06.
    (39 + 5 * 8, {'name': 'lasers', 'K': 512, 'S': 5}),
    (38 + 5 * 8, {'name': 'lasers', 'K': 500, 'S': 5}),
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
