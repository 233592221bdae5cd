import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding.keep import (
  dequantize_fractions,
  keep_largest,
  quantize_fractions,
)


def test_the_largest_magnitudes_are_kept_in_order():
  values = jnp.array([[[0.1, -3.0, 2.0, 0.0, -0.5]]])
  kept = keep_largest(values, 3)
  assert kept.atoms.dtype == jnp.int32
  np.testing.assert_array_equal(kept.atoms, [[[1, 2, 4]]])
  np.testing.assert_array_equal(kept.coefficients, [[[-3.0, 2.0, -0.5]]])


def test_the_lowest_index_wins_a_tie():
  values = jnp.array([[1.0, -2.0, 2.0, 0.0, -2.0, 0.0, 1.0]])
  kept = keep_largest(values, 5)
  np.testing.assert_array_equal(kept.atoms, [[1, 2, 4, 0, 6]])
  zeros = keep_largest(jnp.zeros((2, 4)), 2)
  np.testing.assert_array_equal(zeros.atoms, [[0, 1], [0, 1]])


@pytest.mark.parametrize('bits', [1, 3, 8])
def test_fractions_are_within_half_a_level(bits):
  rng = np.random.default_rng(bits)
  fractions = -np.sort(
    -rng.uniform(0, 0.1, (200, 4)).astype(np.float32), axis=1
  )
  levels = quantize_fractions(jnp.asarray(fractions), bits)
  top = 2**bits - 1
  assert levels.dtype == jnp.int32
  assert levels.min() >= 0
  np.testing.assert_array_equal(levels[:, 0], top)
  ratios = fractions / fractions[:, :1]
  assert np.abs(np.asarray(levels) / top - ratios).max() <= 0.5001 / top
  back = np.asarray(dequantize_fractions(levels))
  np.testing.assert_allclose(back.sum(axis=1), 1, rtol=1e-6)
  expected = np.asarray(levels) / np.asarray(levels).sum(axis=1)[:, None]
  np.testing.assert_allclose(back, expected, rtol=1e-6)


def test_nothing_to_divide_is_no_nan():
  levels = quantize_fractions(jnp.zeros((1, 3)), 8)
  np.testing.assert_array_equal(levels, 0)
  np.testing.assert_array_equal(dequantize_fractions(levels), 0)
