import numpy as np
import pytest
from scipy import linalg

from lasers_jax.metrics.frechet import FeatureStatistics, frechet_distance


def _statistics(*batches):
  statistics = FeatureStatistics()
  for batch in batches:
    statistics.add(batch)
  return statistics


def _correlated(seed, n, d, shift=0.0):
  """Samples of a Gaussian with a random covariance."""
  rng = np.random.default_rng(seed)
  mixing = rng.normal(size=(d, d)) / np.sqrt(d)
  return rng.normal(size=(n, d)) @ mixing + shift


def _exact(seed, mean, deviations):
  """Samples whose own mean and (diagonal) covariance are the given ones."""
  x = np.random.default_rng(seed).normal(size=(4 * len(mean), len(mean)))
  x -= x.mean(axis=0)
  q, _ = np.linalg.qr(x)
  return q * np.sqrt(len(x) - 1) * deviations + mean


def test_statistics_are_those_of_numpy():
  x = _correlated(0, 50, 7, shift=3)
  statistics = _statistics(x)
  assert statistics.count == 50
  np.testing.assert_allclose(statistics.mean, x.mean(axis=0), rtol=1e-12)
  np.testing.assert_allclose(
    statistics.covariance, np.cov(x, rowvar=False), rtol=1e-12, atol=1e-15
  )


def test_distance_of_known_gaussians():
  s1, s2 = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.0])
  m1, m2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
  a, b = _statistics(_exact(0, m1, s1)), _statistics(_exact(1, m2, s2))
  expected = np.sum((m1 - m2) ** 2) + np.sum((s1 - s2) ** 2)
  assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
  assert type(frechet_distance(a, b)) is float


@pytest.mark.parametrize('shift', [0.0, 0.3])
def test_distance_agrees_with_sqrtm(shift):
  a = _statistics(_correlated(0, 100, 24))
  b = _statistics(_correlated(1, 80, 24, shift))
  step = a.mean - b.mean
  root = linalg.sqrtm(a.covariance @ b.covariance)
  expected = step @ step + np.trace(a.covariance + b.covariance - 2 * root)
  assert frechet_distance(a, b) == pytest.approx(expected.real, rel=1e-9)
  assert frechet_distance(b, a) == pytest.approx(expected.real, rel=1e-9)


@pytest.mark.parametrize('n', [2, 5, 16])
def test_singular_covariances_are_allowed(n):
  x, y = _correlated(0, n, 16), _correlated(1, n, 16, 0.1)
  # With S = A^T A, Tr (S1 S2)^(1/2) is the sum of the singular values of
  # A1 A2^T, which takes no root of a small difference.
  a, b = ((z - z.mean(axis=0)) / np.sqrt(n - 1) for z in (x, y))
  step = x.mean(axis=0) - y.mean(axis=0)
  shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
  expected = step @ step + np.sum(a * a) + np.sum(b * b) - 2 * shared
  distance = frechet_distance(_statistics(x), _statistics(y))
  assert distance == pytest.approx(expected, rel=1e-6)


def test_equal_statistics_are_at_distance_zero():
  for n in (5, 200):
    a = _statistics(_correlated(0, n, 16, shift=10))
    assert 0 <= frechet_distance(a, a) < 1e-5


def test_constant_features_differ_by_their_means():
  a, b = _statistics(np.zeros((3, 4))), _statistics(np.full((5, 4), 2.0))
  assert frechet_distance(a, b) == pytest.approx(16)


def test_distance_grows_with_the_disturbance():
  x = _correlated(0, 400, 8)
  noise = np.random.default_rng(1).normal(size=x.shape)
  distances = [
    frechet_distance(_statistics(x), _statistics(x + sigma * noise))
    for sigma in (0, 0.1, 0.3, 1)
  ]
  assert np.all(np.diff(distances) > 0)


@pytest.mark.parametrize('shift', [0.0, 1e6])
def test_batches_and_their_order_do_not_matter(shift):
  x = _correlated(0, 97, 6, shift)
  whole = _statistics(x)
  shuffled = np.random.default_rng(1).permutation(x)
  one_by_one = _statistics(*shuffled[:, None])
  # Halves that saw different batches, one of them none, are merged.
  halves = _statistics(*np.array_split(x[:60], 7))
  halves.merge(_statistics(x[60:], x[:0]))
  halves.merge(FeatureStatistics())
  for other in (one_by_one, halves):
    assert other.count == 97
    np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-14, atol=1e-14)
    # Deviations of 1 beside 1e6 are themselves known to 1e-10.
    np.testing.assert_allclose(
      other.covariance, whole.covariance, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
      other.covariance, np.cov(x - shift, rowvar=False), rtol=1e-9, atol=1e-9
    )


def test_merge_leaves_the_other_alone():
  a, b = FeatureStatistics(), _statistics(_correlated(0, 9, 3))
  mean, covariance = b.mean, b.covariance
  a.merge(b)
  a.add(_correlated(1, 9, 3, 5))
  a.mean[:] = 0
  assert (a.count, b.count) == (18, 9)
  np.testing.assert_array_equal(b.mean, mean)
  np.testing.assert_array_equal(b.covariance, covariance)


def test_sums_of_float32_features_are_float64():
  x = np.full((1000, 1), 0.1, np.float32)
  x[0] = 1e6
  statistics = _statistics(*x.reshape(100, 10, 1))
  expected = np.float64(x).mean()
  assert statistics.mean[0] == pytest.approx(expected, rel=1e-14)


def test_a_broken_image_shows():
  x = _correlated(0, 10, 3)
  broken = x.copy()
  broken[2, 1] = np.nan
  assert np.isnan(frechet_distance(_statistics(x), _statistics(broken)))


def test_what_is_no_pair_of_sets_is_refused():
  a = _statistics(_correlated(0, 9, 3))
  with pytest.raises(ValueError, match='width 3 and 4'):
    frechet_distance(a, _statistics(_correlated(0, 9, 4)))
  with pytest.raises(ValueError, match='width 4 and 3'):
    a.add(np.zeros((2, 4)))
  with pytest.raises(ValueError, match=r'\[n, d\]'):
    a.add(np.zeros(3))
  with pytest.raises(ValueError, match='statistics of 1 samples'):
    frechet_distance(a, _statistics(np.zeros((1, 3))))
  with pytest.raises(ValueError, match='statistics of 0 samples'):
    frechet_distance(FeatureStatistics(), a)
