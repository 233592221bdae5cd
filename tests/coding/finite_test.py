import itertools

import jax
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
  levels = tuple(range(2, 60)) + (999, finite.MOST_LEVELS)
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


def test_the_last_of_as_many_codes_as_fit():
  levels = (2,) * 31
  last = jnp.ones((1, 31), jnp.int32)
  index = finite.to_index(last, levels)
  assert index[0] == 2**31 - 1
  np.testing.assert_array_equal(finite.to_digits(index, levels), last)


def test_linear_is_a_product_and_has_its_gradient():
  generator = np.random.default_rng(0)
  x, kernel, c = (
    generator.standard_normal(shape) for shape in ((5, 6), (6, 3), (5, 3))
  )
  f4 = [jnp.asarray(a, 'f4') for a in (x, kernel, c)]
  np.testing.assert_allclose(
    finite.linear(*f4[:2]), x @ kernel, rtol=1e-5, atol=1e-6
  )

  def total(x, kernel):
    return jnp.sum(finite.linear(x, kernel) * f4[2])

  to_x, to_kernel = jax.grad(total, argnums=(0, 1))(*f4[:2])
  np.testing.assert_allclose(to_x, c @ kernel.T, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(to_kernel, x.T @ c, rtol=1e-5, atol=1e-6)


def test_linear_maps_a_row_alike_whatever_comes_along():
  generator = np.random.default_rng(1)
  x = jnp.asarray(generator.standard_normal((2500, 13)), 'f4')
  kernel = jnp.asarray(generator.standard_normal((13, 5)), 'f4')
  together = finite.linear(x, kernel)
  for rows in (slice(0, 1), slice(100, 131), slice(None, None, -1)):
    alone = finite.linear(x[rows], kernel)
    np.testing.assert_array_equal(alone, together[rows])
