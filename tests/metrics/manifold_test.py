import math
import tracemalloc

import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.metrics import manifold as module
from lasers_jax.metrics.manifold import (
  as_samples,
  expected_coverage,
  manifold_scores,
  squared_radii,
  tiles,
)


def _normal(seed, n, d=3, shift=0.0):
  return np.random.default_rng(seed).normal(size=(n, d)) + shift


def _by_definition(real, fake, k):
  """The four scores as the papers have them, one pair at a time."""

  def radius(x, i):
    others = [math.dist(x[i], x[j]) for j in range(len(x)) if j != i]
    return sorted(others)[k - 1]

  real_radii = [radius(real, i) for i in range(len(real))]
  fake_radii = [radius(fake, j) for j in range(len(fake))]
  # held[i][j]: the ball of real i holds fake j; and the other way round.
  held = [
    [math.dist(x, y) <= r for y in fake]
    for x, r in zip(real, real_radii, strict=True)
  ]
  holds = [
    [math.dist(x, y) <= r for y, r in zip(fake, fake_radii, strict=True)]
    for x in real
  ]
  n, m = len(real), len(fake)
  return {
    'precision': sum(any(row[j] for row in held) for j in range(m)) / m,
    'recall': sum(any(row) for row in holds) / n,
    'density': sum(sum(row) for row in held) / (k * m),
    'coverage': sum(any(row) for row in held) / n,
  }


def _four(scores):
  return {name: scores[name] for name in scores if name[:8] != 'expected'}


@pytest.mark.parametrize('k', [1, 3, 5])
def test_scores_are_those_of_the_definition(k):
  real, fake = _normal(0, 60), _normal(1, 45, shift=1.2)
  expected = _by_definition(real, fake, k)
  scores = manifold_scores(real, fake, k)
  assert _four(scores) == pytest.approx(expected, rel=1e-12)
  # No score stands at an end of its range, where it could not be told wrong.
  assert all(0 < value < 1 for value in expected.values())
  assert {type(value) for value in scores.values()} == {float}


def test_tiles_order_place_and_type_do_not_matter(monkeypatch):
  real, fake = _normal(0, 60), _normal(1, 45, shift=0.7)
  whole = manifold_scores(real, fake, 3)
  monkeypatch.setattr(module, '_TILE', 16)
  assert manifold_scores(real, fake, 3) == whole
  assert manifold_scores(real[::-1], np.roll(fake, 7, axis=0), 3) == whole
  assert manifold_scores(1e4 - real, 1e4 - fake, 3) == whole
  single = np.float32(real), np.float32(fake)
  assert manifold_scores(*single, 3) == manifold_scores(
    *(x.astype(np.float64) for x in single), 3
  )


@pytest.mark.parametrize('shift', [0.0, 100.0])
def test_a_set_against_itself(shift):
  x = _normal(0, 50, d=16, shift=shift)
  scores = manifold_scores(x, np.random.default_rng(1).permutation(x), k=4)
  # A ball holds its centre and four others, of which one is on its edge.
  expected = {'precision': 1, 'recall': 1, 'density': 5 / 4, 'coverage': 1}
  assert _four(scores) == expected


def test_sets_far_apart():
  scores = manifold_scores(_normal(0, 50), _normal(1, 40, shift=100))
  assert _four(scores) == dict.fromkeys(_four(scores), 0)


def test_one_mode_is_precise_and_covers_little():
  real = np.concatenate([_normal(0, 100), _normal(1, 100, shift=50)])
  scores = manifold_scores(real, _normal(2, 100), k=5)
  assert scores['precision'] > 0.8
  assert scores['density'] > 0.8
  assert 0.3 < scores['recall'] <= 0.5
  assert 0.3 < scores['coverage'] <= 0.5


def test_what_is_expected_of_two_draws_of_one_distribution():
  n, m, k, repeats = 80, 60, 3, 60
  scores = [
    manifold_scores(_normal(2 * i, n), _normal(2 * i + 1, m), k)
    for i in range(repeats)
  ]
  for name, expected in (
    ('density', 1.0),
    ('coverage', expected_coverage(n, m, k)),
  ):
    values = np.array([score[name] for score in scores])
    error = values.std(ddof=1) / math.sqrt(repeats)
    assert error < 0.03
    assert abs(values.mean() - expected) < 4 * error
  assert scores[0]['expected_coverage'] == expected_coverage(n, m, k)


def test_expected_coverage_in_small():
  # One neighbour: the nearest of 3 real and 2 fake rows is fake.
  assert expected_coverage(4, 2, 1) == pytest.approx(2 / 5)
  # The nearest two of 3 real and 2 fake rows: 3 pairs of 10 are all real.
  assert expected_coverage(4, 2, 2) == pytest.approx(7 / 10)
  assert 0.95 < expected_coverage(10000, 10000, 5) < 0.97


def test_equal_rows_are_neighbours_at_distance_zero():
  x = np.repeat(_normal(0, 20, d=16, shift=5), 3, axis=0)
  np.testing.assert_array_equal(squared_radii(x, 2), 0)
  assert np.all(squared_radii(x, 3) > 0)
  # Balls of radius zero still hold what is equal to their centre.
  scores = manifold_scores(x, x[::3].repeat(2, axis=0), k=1)
  expected = {'precision': 1, 'recall': 1, 'density': 3, 'coverage': 1}
  assert _four(scores) == expected
  assert _four(manifold_scores(np.zeros((9, 4)), np.zeros((8, 4)))) == {
    **expected,
    'density': 9 / 5,
  }


def test_radii_are_those_of_sorted_distances(monkeypatch):
  monkeypatch.setattr(module, '_TILE', 16)
  x = _normal(0, 50)
  distances = np.linalg.norm(x[:, None] - x, axis=2)
  for k in (1, 7, 49):
    expected = np.sort(distances, axis=1)[:, k]
    np.testing.assert_allclose(np.sqrt(squared_radii(x, k)), expected, 1e-12)


def test_tiles_go_over_all_pairs_in_little_memory():
  x, y = _normal(0, 3000, 8).astype('f'), _normal(1, 5000, 8).astype('f')
  pairs = 0
  tracemalloc.start()
  for rows, columns, distances in tiles(x, y):
    assert distances.shape == (len(x[rows]), len(y[columns]))
    pairs += distances.size
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert pairs == 3000 * 5000
  assert peak < 40e6 < pairs * 8 / 2


@pytest.mark.parametrize('k', [10, 11])
def test_neighbours_that_are_not_there_are_refused(k):
  x, y = _normal(0, 10), _normal(1, 30)
  for real, fake in ((x, y), (y, x)):
    with pytest.raises(InputError, match='of 10: k must be from 1 to 9'):
      manifold_scores(real, fake, k)
  with pytest.raises(InputError, match='k must be from 1 to 29'):
    manifold_scores(y, x, 0)
  assert manifold_scores(x, y, 9)['precision'] > 0


def test_what_is_no_pair_of_sets_is_refused():
  x = _normal(0, 10)
  with pytest.raises(ValueError, match='width: real 3, fake 4'):
    manifold_scores(x, _normal(0, 10, 4))
  for bad in (x[:0], x[:, :0], x[0], x[None]):
    with pytest.raises(ValueError, match=r'fake must be \[n, d\] with n > 0'):
      manifold_scores(x, bad)
  for value in (np.nan, np.inf):
    broken = x.copy()
    broken[2:4, 1] = value
    with pytest.raises(ValueError, match='real: NaN or infinity in 2 of 10'):
      manifold_scores(broken, x)


def test_samples_are_taken_as_they_are():
  pixels = np.zeros((3, 4), np.uint8)
  (same,) = as_samples(pixels=pixels)
  assert same is pixels


@pytest.mark.parametrize('scale', [1e-4, 1, 1e4])
@pytest.mark.parametrize(
  ('mean', 'deviation'), [(10, 1), (1000, 0.01), (1e5, 0.1)]
)
def test_distances_are_those_of_differences(mean, deviation, scale):
  """Of rows in two groups far apart, whose mean is far from all of them."""
  rng = np.random.default_rng(0)
  x, y = mean + deviation * rng.normal(size=(2, 60, 5))
  x[::2], y[::3] = -x[::2], -y[::3]
  y[:5] = x[:5]
  x, y = (scale * z for z in (x, y))
  found = np.empty((60, 60))
  for rows, columns, distances in tiles(x, y):
    found[rows, columns] = distances
  expected = np.sum((x[:, None] - y[None]) ** 2, axis=2)
  np.testing.assert_allclose(found, expected, rtol=1e-8, atol=0)
  assert (np.diagonal(found)[:5] == 0).all()
