import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding import finite

GRIDS = [(8, 5, 5, 5), (2, 3), (4, 4, 2), (7,)]


def bound_of_the_paper(x, levels):
  """Appendix A.1, in float64 and steps of the grid."""
  levels = np.array(levels)
  half = (levels - 1) * (1 - 1e-3) / 2
  offset = np.where(levels % 2 == 0, 0.5, 0.0)
  return np.tanh(x + np.tan(offset / half)) * half - offset


def grid(levels):
  """All rows of levels, the first varying fastest."""
  rows = itertools.product(*(range(n) for n in levels[::-1]))
  return np.array(list(rows), np.int32)[:, ::-1]


@pytest.mark.parametrize('levels', GRIDS)
def test_the_bound_is_that_of_the_appendix(levels):
  x = np.random.default_rng(0).normal(0, 2, (200, len(levels)))
  bounded = finite.bound(jnp.asarray(x, 'f4'), levels)
  steps = bound_of_the_paper(x, levels)
  middle = np.array(levels) // 2
  np.testing.assert_allclose(bounded, steps / middle, atol=1e-6)

  digits = finite.nearest_levels(bounded, levels)
  np.testing.assert_array_equal(digits, np.round(steps) + middle)
  assert digits.dtype == jnp.int32
  np.testing.assert_allclose(
    finite.level_values(digits, levels), np.round(steps) / middle, rtol=1e-6
  )


@pytest.mark.parametrize('levels', GRIDS)
def test_indices_are_one_to_one_on_the_whole_grid(levels):
  digits = grid(levels)
  index = finite.to_index(jnp.asarray(digits), levels)
  assert index.dtype == jnp.int32
  np.testing.assert_array_equal(index, np.arange(np.prod(levels)))
  np.testing.assert_array_equal(finite.to_digits(index, levels), digits)


@pytest.mark.parametrize('levels', GRIDS)
def test_every_level_comes_back_as_itself(levels):
  digits = jnp.asarray(grid(levels))
  values = finite.level_values(digits, levels)
  assert np.abs(values).max() <= 1
  back = finite.nearest_levels(values, levels)
  np.testing.assert_array_equal(back, digits)


def test_both_ends_are_reached_by_any_number_of_levels():
  levels = (*range(2, 60), 999, finite.MOST_LEVELS)
  for x, ends in ((-1e3, np.zeros(len(levels))), (1e3, np.array(levels) - 1)):
    extreme = jnp.full((1, len(levels)), x)
    bounded = finite.bound(extreme, levels)
    digits = finite.nearest_levels(bounded, levels)
    np.testing.assert_array_equal(digits[0], ends)


def test_every_level_is_reached_in_between():
  levels = (2, 5, 8)
  x = jnp.linspace(-4, 4, 2000)[:, None] * jnp.ones((1, 3))
  digits = finite.nearest_levels(finite.bound(x, levels), levels)
  for column, n in zip(np.asarray(digits).T, levels, strict=True):
    np.testing.assert_array_equal(np.unique(column), np.arange(n))
    assert np.all(np.diff(column) >= 0)


def test_zero_is_the_middle():
  levels = (3, 4, 5, 8, 100)
  bounded = finite.bound(jnp.zeros((1, 5)), levels)
  np.testing.assert_allclose(bounded, np.zeros((1, 5)), atol=1e-3)


@pytest.mark.parametrize(
  'levels, dtype',
  [
    ((2,) * 31, jnp.int32),
    ((2,) * 32, jnp.uint32),
    ((1000, 1000, 1000, 4), jnp.uint32),
  ],
)
def test_codes_of_as_many_as_fit(levels, dtype):
  last = np.array(levels) - 1
  digits = np.stack([last, 0 * last, last // 2, np.roll(last, 1) % levels])
  index = finite.to_index(jnp.asarray(digits, jnp.int32), levels)
  assert index.dtype == dtype
  strides = [math.prod(levels[:i]) for i in range(len(levels))]
  np.testing.assert_array_equal(index, digits @ np.array(strides, np.int64))
  back = finite.to_digits(index, levels)
  assert back.dtype == jnp.int32
  np.testing.assert_array_equal(back, digits)
