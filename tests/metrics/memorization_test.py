import math

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cdist

from lasers_jax.errors import InputError
from lasers_jax.metrics import manifold
from lasers_jax.metrics.memorization import memorization, nearest


def _normal(seed, n, d=8, shift=0.0):
  return np.random.default_rng(seed).normal(size=(n, d)) + shift


def test_nearest_is_that_of_all_distances(monkeypatch):
  x, y = _normal(0, 50, shift=3), _normal(1, 70, shift=3)
  distances = cdist(x, y)
  for tile in (1024, 16):
    monkeypatch.setattr(manifold, '_TILE', tile)
    found, index = nearest(x, y)
    np.testing.assert_array_equal(index, distances.argmin(axis=1))
    np.testing.assert_allclose(found, distances.min(axis=1), rtol=1e-12)


def test_nearest_does_not_hang_on_order():
  x, y = _normal(0, 50), _normal(1, 70)
  order = np.random.default_rng(2).permutation(70)
  found, index = nearest(x, y)
  shuffled, there = nearest(x[::-1], y[order])
  np.testing.assert_allclose(shuffled[::-1], found, rtol=1e-12)
  np.testing.assert_array_equal(order[there[::-1]], index)


def test_nearest_of_equal_rows_is_the_first_at_zero(monkeypatch):
  monkeypatch.setattr(manifold, '_TILE', 8)
  y = np.tile(_normal(0, 13, shift=1000), (3, 1))
  found, index = nearest(y[26:], y)
  np.testing.assert_array_equal(found, 0)
  np.testing.assert_array_equal(index, np.arange(13))


@pytest.mark.parametrize('shift', [0.0, 1e5])
def test_nearest_keeps_small_distances(shift):
  # float32 would lose these beside the norm, float64 too beside the shift.
  y = _normal(0, 20, d=64, shift=shift)
  found, index = nearest(y + 1e-4 / 8, y)
  np.testing.assert_allclose(found, 1e-4, rtol=1e-5)
  np.testing.assert_array_equal(index, np.arange(20))


def test_scores_are_those_of_the_definition():
  samples, train, held_out = _normal(0, 40), _normal(1, 30), _normal(2, 30)
  scores = memorization(samples, train, held_out)
  near, far = (cdist(samples, y).min(axis=1) for y in (train, held_out))
  to_train = cdist(held_out, train).min(axis=1)
  apart = cdist(held_out, held_out)
  np.fill_diagonal(apart, np.inf)
  to_others = apart.min(axis=1)
  u = scipy.stats.mannwhitneyu(near, to_train).statistic
  expected = {
    'rows': 30,
    'train_mean': near.mean(),
    'train_median': np.median(near),
    'held_out_mean': far.mean(),
    'held_out_median': np.median(far),
    'mean_ratio': near.mean() / far.mean(),
    'median_ratio': np.median(near) / np.median(far),
    'fraction': np.mean(near < far),
    'reference_mean_ratio': to_train.mean() / to_others.mean(),
    'reference_median_ratio': np.median(to_train) / np.median(to_others),
    'reference_fraction': np.mean(to_train < to_others),
    'all_train_mean_ratio': near.mean() / to_train.mean(),
    'all_train_median_ratio': np.median(near) / np.median(to_train),
    'copying_z': (u - 600) / math.sqrt(40 * 30 * 71 / 12),
  }
  assert scores == pytest.approx(expected, rel=1e-10)
  assert {type(value) for value in scores.values()} == {int, float}


def test_copies_of_training_rows():
  train, held_out = _normal(0, 200, shift=50), _normal(1, 200, shift=50)
  copies = np.random.default_rng(2).choice(train, 300)
  exact = memorization(copies, train, held_out)
  assert exact['fraction'] == 1
  assert exact['copying_z'] < -15
  assert exact['mean_ratio'] == exact['all_train_median_ratio'] == 0
  near = memorization(copies + 1e-3, train, held_out)
  assert near['fraction'] == 1
  assert 0 < near['mean_ratio'] < 0.01
  # What real data would score hangs on the prior in nothing.
  for name in ('mean_ratio', 'median_ratio', 'fraction'):
    assert near[f'reference_{name}'] == exact[f'reference_{name}']


def test_copies_show_also_where_few_training_rows_are_compared():
  train, held_out = _normal(0, 1000), _normal(1, 100)
  scores = memorization(train[:400], train, held_out)
  assert scores['rows'] == 100
  # A tenth of the copied rows is among those, of the others half is nearer.
  assert scores['fraction'] == pytest.approx(0.55, abs=0.1)
  assert scores['all_train_mean_ratio'] == 0
  assert scores['copying_z'] < -10


@pytest.mark.parametrize('train_rows, held_out_rows', [(900, 300), (300, 900)])
def test_new_draws_of_the_same_distribution(train_rows, held_out_rows):
  sets = _normal(0, 500), _normal(1, train_rows), _normal(2, held_out_rows)
  scores = memorization(*sets)
  assert scores['rows'] == 300
  for start, n in (('', 500), ('reference_', 300)):
    # Binomial error of the samples, and about as much of the rows compared.
    tolerance = 4 * math.sqrt(0.25 / n + 0.25 / 300)
    assert abs(scores[f'{start}fraction'] - 0.5) < tolerance
    assert scores[f'{start}mean_ratio'] == pytest.approx(1, abs=0.05)
    assert scores[f'{start}median_ratio'] == pytest.approx(1, abs=0.08)
  assert scores['all_train_mean_ratio'] == pytest.approx(1, abs=0.05)
  assert abs(scores['copying_z']) < 4


def test_the_deviate_is_standard_for_new_draws():
  values = [
    memorization(*np.split(_normal(seed, 240, d=2), [60, 200]))['copying_z']
    for seed in range(100)
  ]
  assert abs(np.mean(values)) < 0.4
  assert 0.7 < np.std(values) < 1.3


def test_samples_that_are_off_are_as_far_from_both():
  sets = _normal(0, 300, shift=20), _normal(1, 300), _normal(2, 300)
  scores = memorization(*sets)
  assert scores['mean_ratio'] == pytest.approx(1, abs=0.05)
  assert scores['all_train_mean_ratio'] > 10
  assert scores['copying_z'] > 15


def test_a_shift_between_train_and_held_out_shows_in_the_reference():
  sets = _normal(0, 300), _normal(1, 300), _normal(2, 300, shift=1)
  scores = memorization(*sets)
  assert scores['reference_fraction'] < 0.3
  assert scores['fraction'] > 0.7


def test_scores_are_a_function_of_the_sets_and_the_seed(monkeypatch):
  samples, train, held_out = _normal(0, 60), _normal(1, 90), _normal(2, 40)
  first = memorization(samples, train, held_out)
  assert memorization(samples, train, held_out) == first
  assert memorization(samples, train, held_out, seed=1) != first
  monkeypatch.setattr(manifold, '_TILE', 16)
  tiled = memorization(samples[::-1], train, held_out)
  assert tiled == pytest.approx(first, rel=1e-10)


def test_ties_count_half():
  x = np.zeros((5, 3))
  scores = memorization(x, x, x)
  assert scores['fraction'] == scores['reference_fraction'] == 0.5
  assert scores['mean_ratio'] == 1
  assert scores['copying_z'] == 0
  # Samples that are held-out rows are infinitely farther from others.
  y = _normal(0, 5, 3)
  scores = memorization(y, x, y)
  assert scores['fraction'] == 0
  assert scores['mean_ratio'] == math.inf


def test_what_cannot_be_compared_is_refused():
  x = _normal(0, 10)
  with pytest.raises(InputError, match='2 held-out rows or more, got 10 and 1'):
    memorization(x, x, x[:1])
  with pytest.raises(ValueError, match='width: train 8, held_out 4'):
    memorization(x, x, x[:, :4])
  with pytest.raises(ValueError, match='train must be'):
    memorization(x, x[:0], x)
  with pytest.raises(ValueError, match='samples: NaN or infinity in 1 of 10'):
    memorization(np.where(np.arange(10)[:, None] == 3, np.nan, x), x, x)
  with pytest.raises(ValueError, match='width: x 8, y 4'):
    nearest(x, x[:, :4])
