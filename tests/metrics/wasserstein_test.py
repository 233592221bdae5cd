import itertools
import math

import numpy as np
import pytest
import scipy.stats

from lasers_jax.errors import InputError
from lasers_jax.metrics import wasserstein as module
from lasers_jax.metrics.wasserstein import exact, marginal, sliced

ALL = pytest.mark.parametrize('distance', [marginal, sliced, exact])


def _normal(seed, n, d=4, scale=1.0, shift=0.0):
  return scale * np.random.default_rng(seed).normal(size=(n, d)) + shift


def _quantiles(n, mean, deviation):
  """[n, 1]: a Gaussian by its quantiles."""
  levels = (np.arange(n) + 0.5) / n
  return scipy.stats.norm(mean, deviation).ppf(levels)[:, None]


@ALL
def test_a_permutation_is_at_distance_zero(distance):
  x = _normal(0, 60, shift=5)
  y = np.random.default_rng(1).permutation(x)
  # Sums along a direction are rounded as their rows lie.
  assert distance(x, y) == pytest.approx(0, abs=1e-14)
  assert type(distance(x, y)) is float


@ALL
def test_order_scale_and_symmetry(distance):
  x, y = _normal(0, 40), _normal(1, 40, scale=2, shift=1)
  value = distance(x, y)
  assert value > 0.3
  assert distance(y, x) == pytest.approx(value, rel=1e-12)
  assert distance(x[::-1], np.roll(y, 7, axis=0)) == pytest.approx(value, 1e-12)
  assert distance(3 * x + 7, 3 * y + 7) == pytest.approx(3 * value, rel=1e-12)


def test_shifted_points():
  x, shift = _normal(0, 50), np.array([1.0, -2.0, 0.0, 5.0])
  assert marginal(x, x + shift) == pytest.approx(8 / 4, rel=1e-12)
  assert exact(x, x + shift) == pytest.approx(math.sqrt(30), rel=1e-12)
  # W2 of a shift along a direction is its part along it.
  assert sliced(x, x + shift) == pytest.approx(math.sqrt(30 / 4), rel=0.1)


def test_a_shift_counts_alike_in_all_directions():
  x = _normal(0, 20, d=16)
  shifts = np.random.default_rng(1).normal(size=(20, 16))
  shifts *= 8 / np.linalg.norm(shifts, axis=1, keepdims=True)
  for distance, expected, error in ((sliced, 2, 0.1), (exact, 8, 1e-12)):
    values = [distance(x, x + shift) for shift in shifts]
    np.testing.assert_allclose(values, expected, rtol=error)


@pytest.mark.parametrize('distance', [sliced, exact])
def test_a_rotation_of_both_matters_little(distance):
  x, y = _normal(0, 60), _normal(1, 60, shift=1)
  rotation, _ = np.linalg.qr(_normal(2, 4))
  turned = distance(x @ rotation, y @ rotation)
  assert turned == pytest.approx(distance(x, y), rel=0.05)


def test_gaussians_in_one_dimension():
  x, y = _quantiles(2000, 0, 1), _quantiles(2000, 1, 3)
  # W2^2 = (m1 - m2)^2 + (s1 - s2)^2; the tails are cut by the quantiles.
  assert sliced(x, y) == pytest.approx(math.sqrt(5), rel=2e-3)
  # All of a line is the slowest case of the assignment: one point of ten.
  assert exact(x[::10], y[::10]) == pytest.approx(math.sqrt(5), rel=0.02)
  assert sliced(x, _quantiles(700, 1, 3)) == pytest.approx(
    math.sqrt(5), rel=5e-3
  )
  # W1 of equal means is the mean absolute difference of the quantiles.
  expected = 2 * math.sqrt(2 / math.pi)
  assert marginal(x, _quantiles(1500, 0, 3)) == pytest.approx(expected, 2e-3)


@pytest.mark.parametrize('n, m', [(50, 50), (50, 1), (60, 45), (31, 64)])
def test_marginal_agrees_with_scipy(n, m, monkeypatch):
  x, y = _normal(0, n, 7), _normal(1, m, 7, scale=2, shift=0.5)
  x[: n // 2] = np.round(x[: n // 2])  # ties
  expected = np.mean(
    [scipy.stats.wasserstein_distance(x[:, i], y[:, i]) for i in range(7)]
  )
  assert marginal(x, y) == pytest.approx(expected, rel=1e-12)
  monkeypatch.setattr(module, '_COLUMNS', 3)
  assert marginal(x, y) == pytest.approx(expected, rel=1e-12)


def test_rows_said_twice_change_nothing():
  x, y = _normal(0, 30), _normal(1, 20, shift=1)
  for distance in (marginal, sliced):
    twice = distance(np.tile(x, (2, 1)), np.tile(y, (3, 1)))
    assert twice == pytest.approx(distance(x, y), rel=1e-12)


def test_sliced_agrees_with_one_direction_after_another(monkeypatch):
  monkeypatch.setattr(module, '_COLUMNS', 5)
  x, y = _normal(0, 30), _normal(1, 30, shift=1)
  directions = np.random.default_rng(3).normal(size=(12, 4))
  squares = []
  for direction in directions:
    direction = direction / np.linalg.norm(direction)
    gaps = np.sort(x @ direction) - np.sort(y @ direction)
    squares.append(np.mean(gaps**2))
  expected = math.sqrt(np.mean(squares))
  value = sliced(x, y, directions=12, seed=3)
  assert value == pytest.approx(expected, rel=1e-12)
  assert sliced(x, y, directions=12, seed=4) != value


def test_exact_is_the_best_of_all_assignments():
  x, y = _normal(0, 6), _normal(1, 6)
  best = min(
    np.mean(np.sum((x - y[list(order)]) ** 2, axis=1))
    for order in itertools.permutations(range(6))
  )
  assert exact(x, y) == pytest.approx(math.sqrt(best), rel=1e-12)


def test_exact_draws_rows_by_the_seed():
  x, y = _normal(0, 300), _normal(1, 200, shift=3)
  value = exact(x, y, most=50)
  assert exact(x, y, most=50) == value != exact(x, y, most=50, seed=1)
  assert value == pytest.approx(6, rel=0.1)
  # As many as the smaller set has, which is then whole: one row of many.
  assert exact(x, y[:1]) in np.linalg.norm(x - y[0], axis=1)
  # Drawn without replacement, for the two sets apart.
  line = np.arange(100.0)[:, None]
  assert 0 < exact(line, line, most=99) <= 1


def test_distances_are_ordered():
  # W2 along directions is at most W2; W1 of a marginal at most its W2.
  for seed in range(5):
    x, y = _normal(seed, 40), _normal(seed + 100, 40, scale=1.5, shift=0.3)
    assert sliced(x, y) <= exact(x, y)
    assert marginal(x, y) <= exact(x, y)


@ALL
def test_a_disturbance_is_above_the_floor(distance):
  real = _normal(0, 400)
  floor = distance(real[:200], real[200:])
  grown = [
    distance(real[:200], scale * real[200:] + shift)
    for scale, shift in ((1.5, 0), (2, 0), (2, 1))
  ]
  assert 0 < floor < grown[0] < grown[1] < grown[2]


def test_values_agree_with_pot(monkeypatch):
  for backend in ('PYTORCH', 'TENSORFLOW', 'JAX'):  # slow to import, not used
    monkeypatch.setenv(f'POT_BACKEND_DISABLE_{backend}', '1')
  ot = pytest.importorskip('ot')
  x, y = _normal(0, 60), _normal(1, 60, scale=2, shift=1)
  uniform = np.full(60, 1 / 60)
  expected = ot.emd2(uniform, uniform, ot.dist(x, y))
  assert exact(x, y) == pytest.approx(math.sqrt(expected), rel=1e-9)
  fewer, rng = y[:35], np.random.default_rng(0)
  directions = rng.normal(size=(512, 4))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  expected = ot.sliced_wasserstein_distance(
    x, fewer, projections=directions.T, p=2
  )
  assert sliced(x, fewer) == pytest.approx(float(expected), rel=1e-9)
  expected = np.mean(ot.wasserstein_1d(x, fewer, p=1))
  assert marginal(x, fewer) == pytest.approx(expected, rel=1e-9)


@ALL
def test_what_is_no_pair_of_sets_is_refused(distance):
  x = _normal(0, 10)
  with pytest.raises(ValueError, match='width: x 4, y 3'):
    distance(x, x[:, :3])
  for bad in (x[:0], x[0]):
    with pytest.raises(ValueError, match=r'y must be \[n, d\] with n > 0'):
      distance(x, bad)
  broken = x.copy()
  broken[3] = np.nan
  with pytest.raises(ValueError, match='x: NaN or infinity in 1 of 10 rows'):
    distance(broken, x)


def test_counts_under_one_are_refused():
  x = _normal(0, 10)
  with pytest.raises(InputError, match='directions must be at least 1, got 0'):
    sliced(x, x, directions=0)
  with pytest.raises(InputError, match='most must be at least 1, got 0'):
    exact(x, x, most=0)
