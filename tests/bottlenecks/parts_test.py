"""Codes taken apart: their parts add up to what `decode` gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bottlenecks.rows import (
  BY_IMAGE,
  INNER,
  product,
  residual,
  start,
  start_row,
)

pytestmark = pytest.mark.slow


def added_up(parts, count=None) -> np.ndarray:
  """The sum of the first parts of each site, in float64."""
  rows, amounts = np.float64(parts.rows), np.float64(parts.amounts)
  each = amounts[..., None] * rows[np.asarray(parts.indices)]
  return np.asarray(parts.rest) + each[..., :count, :].sum(-2)


def taken_apart(case):
  codes = case.apply(case.z, method='encode')
  return codes, case.apply(codes, method='parts')


def test_parts_add_up_to_the_decoded_codes(case, row):
  codes, parts = taken_apart(case)
  if case.module.bits_per_site is None or row in BY_IMAGE:
    assert parts is None
    return
  decoded = case.apply(codes, method='decode')
  np.testing.assert_allclose(added_up(parts), decoded, rtol=1e-4, atol=2e-5)
  assert parts.indices.dtype == jnp.int32
  assert parts.indices.shape == parts.amounts.shape
  assert sum(count for _, count in parts.names) == len(parts.rows)
  if len(case.apply(method='atoms')):
    assert len(case.apply(method='atoms')) == len(parts.rows)
  if field := case.module.counted_by:
    assert getattr(case.module, field) == parts.indices.shape[-1]


def test_the_strongest_atoms_come_first():
  case = start_row('lasers')
  codes, parts = taken_apart(case)
  assert np.all(np.diff(np.abs(parts.amounts), axis=-1) <= 0)
  np.testing.assert_array_equal(np.sort(parts.indices), codes.atoms)
  assert parts.names == (('atom', 16),)
  np.testing.assert_allclose(np.linalg.norm(parts.rows, axis=1), 1, rtol=1e-5)


def test_the_first_levels_are_the_first_parts():
  case = start(residual())
  codes, parts = taken_apart(case)
  bound = case.module.bind(case.variables)
  partial = 0
  for i, level in enumerate(bound.copies):
    partial += np.asarray(level.decode(codes[i]))
    np.testing.assert_allclose(added_up(parts, i + 1), partial, atol=1e-5)
  assert [name for name, _ in parts.names] == [
    'level 1, code', 'level 2, code', 'level 3, code'
  ]  # fmt: skip


def test_copies_of_sets_come_apart_too():
  case = start(product(INNER['lasers']))
  codes, parts = taken_apart(case)
  decoded = case.apply(codes, method='decode')
  np.testing.assert_allclose(added_up(parts), decoded, atol=2e-5)
  indices = jax.device_get(case.module.indices(codes))
  found = np.sort(np.asarray(parts.indices), axis=-1)
  np.testing.assert_array_equal(
    found, np.sort(indices.reshape(found.shape), axis=-1)
  )
