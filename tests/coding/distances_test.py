"""What is nearest, held against float64 where numbers lie far from zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax import coding
from lasers_jax.coding import distances
from lasers_jax.coding.anchors import DISTANCES, cosines, nearest_by_angle
from lasers_jax.coding.hyperbolic import mlr_logits, most_likely_class
from lasers_jax.coding.index_propagation import largest_product

N, D, K = 400, 16, 100
FAR = [(0, 1), (10, 0.1), (3, 0.01), (-100, 0.1), (1000, 1)]


def spread(offset, deviation, n, seed=0):
  rng = np.random.default_rng(seed)
  rows = offset + deviation * rng.standard_normal((n, D))
  return rows.astype(np.float32)


def squares(x, y):
  return np.sum((np.float64(x)[:, None] - np.float64(y)[None]) ** 2, axis=2)


@pytest.mark.parametrize('offset, deviation', FAR)
def test_the_nearest_code_is_that_of_float64(offset, deviation):
  signals = spread(offset, deviation, N)
  codes = spread(offset, deviation, K, 1)
  found = np.asarray(coding.nearest_code(signals, codes))
  exact = squares(signals, codes)
  assert (exact[np.arange(N), found] < (1 + 1e-3) * exact.min(axis=1)).all()


@pytest.mark.parametrize('offset, deviation', FAR)
def test_squared_distances_are_those_of_float64(offset, deviation):
  x, y = spread(offset, deviation, N), spread(offset, deviation, K, 1)
  exact = squares(x, y)
  found = distances.squared_distances(x, y)
  np.testing.assert_allclose(found, exact, rtol=1e-3)
  similar = np.asarray(DISTANCES['euclidean'].similarity(x, y), np.float64)
  both = similar + exact  # the same for all codes of a signal
  assert np.ptp(both, axis=1).max() < 1e-3 * exact.mean()


@pytest.mark.parametrize('deviation', [1, 1e-2, 1e-3])
def test_codes_of_nearly_one_direction_are_told_apart(deviation):
  rng = np.random.default_rng(2)
  common = rng.standard_normal((1, D))
  signals, codes = (
    np.float32(common + deviation * rng.standard_normal((n, D))) for n in (N, K)
  )
  signals, codes = (
    np.asarray(coding.normalize_codes(x)) for x in (signals, codes)
  )
  exact = squares(signals, codes)
  for search in (nearest_by_angle, largest_product):
    found = exact[np.arange(N), np.asarray(search(signals, codes))]
    # A rounding of the norms themselves is of this size.
    assert (found < 1.01 * exact.min(axis=1) + 1e-6).all(), search


def test_cosines_do_not_depend_on_the_size():
  x, y = spread(0, 1, 5), spread(0, 1, 7, 1)
  expected = cosines(x, y)
  for size in (1e-30, 1e-20, 1e20, 1e37):
    found = cosines(np.float32(size) * x, np.float32(size) * y)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_clusters_far_from_zero_are_those_near_it():
  rng = np.random.default_rng(3)
  centres = rng.standard_normal((4, D))
  x = centres[rng.integers(0, 4, N)] + 0.01 * rng.standard_normal((N, D))

  def error(offset):
    rows = np.float32(offset + x)
    codes, use = coding.kmeans(jax.random.key(4), rows, 4)
    assert abs(np.asarray(use).sum() - 4) < 1e-4
    return squares(rows, codes).min(axis=1).mean()

  near, far = error(0), error(300)
  assert abs(far / near - 1) < 0.02


def test_picked_signals_are_as_far_apart_as_the_signals():
  rows = spread(1000, 0.1, N)
  picked = coding.pick_signals(jax.random.key(0), rows, K)
  assert squares(picked, rows).min(axis=1).max() < 1.0


BROKEN = {3: np.nan, 5: np.inf, 7: -np.inf}


def by_class(signals, codes):
  return most_likely_class(signals, codes, jnp.ones(len(codes), 'f4'), 1.0)


SEARCHES = {
  'nearest': coding.nearest_code,
  'product': largest_product,
  'angle': nearest_by_angle,
  'class': by_class,
}


@pytest.mark.parametrize('k', [2, 17, 37, 509, 1024])
@pytest.mark.parametrize('search', SEARCHES)
def test_a_signal_that_is_not_finite_counts_as_zero(search, k):
  search = SEARCHES[search]
  signals, codes = spread(0, 1, 64)[:, :8], spread(0, 1, k, 1)[:, :8]
  zeroed = signals.copy()
  for row, value in BROKEN.items():
    signals[row], zeroed[row] = value, 0
  signals[9, 2], zeroed[9] = np.nan, 0
  found = np.asarray(search(signals, codes))
  assert found.dtype == np.int32
  assert found.min() >= 0
  assert found.max() < k
  np.testing.assert_array_equal(found, search(zeroed, codes))


@pytest.mark.parametrize('search', SEARCHES)
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_code_that_is_not_finite_is_never_chosen(search, value):
  search = SEARCHES[search]
  signals, codes = spread(0, 1, 64), spread(0, 1, 20, 1)
  expected = np.asarray(search(signals, codes[1:])) + 1
  codes[0, 3] = value
  np.testing.assert_array_equal(search(signals, codes), expected)
  found = np.asarray(search(signals, np.full_like(codes, value)))
  assert (found >= 0).all()
  assert (found < 20).all()


@pytest.mark.parametrize('exponent', [-120, -60, 60, 120])
def test_the_nearest_code_does_not_depend_on_the_unit(exponent):
  signals, codes = spread(0, 1, 64), spread(0, 1, K, 1)
  expected = coding.nearest_code(signals, codes)
  scaled = (np.ldexp(x, exponent) for x in (signals, codes))
  np.testing.assert_array_equal(coding.nearest_code(*scaled), expected)


def test_signals_much_larger_than_the_codes_have_a_nearest_one():
  signals, codes = spread(0, 1, 64), spread(0, 1, K, 1)
  far = signals * np.float32(1e38 / np.abs(signals).max())
  expected = np.argmax(np.float64(signals) @ np.float64(codes).T, axis=1)
  np.testing.assert_array_equal(coding.nearest_code(far, codes), expected)


def test_what_is_as_near_goes_to_the_lowest_index():
  codes = np.float32([[3, 1], [1, 3], [1, 1], [3, 3], [1, 1]])
  found = coding.nearest_code(np.float32([[2, 2], [1, 1], [2, 3]]), codes)
  np.testing.assert_array_equal(found, [0, 2, 1])


@pytest.mark.parametrize('size', [1.0, 3.0, 5.0])
def test_logits_far_out_in_the_ball_are_those_of_float64(size):
  rng = np.random.default_rng(5)
  units = rng.standard_normal((K, D))
  units /= np.linalg.norm(units, axis=1, keepdims=True)
  near = units[:50] + 0.1 * rng.standard_normal((50, D))
  tangents = np.float32(size * near / np.linalg.norm(near, axis=1)[:, None])
  units, offsets = np.float32(units), np.full(K, size, np.float32)
  u, z = np.float64(tangents), np.float64(units)
  s, r = 2 * np.linalg.norm(u, axis=1)[:, None], 2 * np.float64(offsets)[None]
  lengths = np.linalg.norm(z, axis=1)[None]
  cosine = u @ z.T / (s / 2) / lengths
  inside = np.sinh(s) * cosine * np.cosh(r) - np.cosh(s) * np.sinh(r)
  expected = 2 * lengths * np.arcsinh(inside)
  found = mlr_logits(tangents, units, offsets, 1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('search', ['nearest', 'product'])
def test_complex_numbers_are_refused(search):
  with pytest.raises(TypeError, match='must be real'):
    SEARCHES[search](np.ones((3, 2), complex), np.ones((4, 2), 'f4'))
