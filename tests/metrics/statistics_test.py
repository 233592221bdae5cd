import json

import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.metrics import statistics


def test_bootstrap_agrees_with_the_normal_approximation():
  values = np.random.default_rng(5).normal(30, 4, 4000)
  half = 1.96 * values.std() / np.sqrt(len(values))
  low, high = statistics.bootstrap_interval(values)
  assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
  assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_is_a_function_of_values_and_seed():
  values = np.random.default_rng(6).random(200)
  interval = statistics.bootstrap_interval(values)
  assert interval == statistics.bootstrap_interval(values[::-1])
  assert interval != statistics.bootstrap_interval(values, seed=1)
  assert all(type(end) is float for end in interval)


def test_bootstrap_narrows_with_more_images():
  values = np.random.default_rng(7).random(3200)
  widths = [
    np.diff(statistics.bootstrap_interval(values[:n]))[0]
    for n in (50, 400, 3200)
  ]
  assert widths[0] > 1.5 * widths[1] > 1.5**2 * widths[2] > 0


@pytest.mark.parametrize('n', [10, 15, 40])
@pytest.mark.parametrize('law', ['normal', 'uniform'])
def test_an_interval_covers_what_it_says(law, n):
  rng, hits = np.random.default_rng(n), 0
  for _ in range(300):
    # Both are symmetric about 0.
    values = rng.uniform(-1, 1, n) if law == 'uniform' else rng.normal(size=n)
    low, high = statistics.bootstrap_interval(values, draws=200)
    hits += low <= 0 <= high
  # Three deviations of the share, and one percent that percentiles scatter by.
  assert hits / 300 == pytest.approx(0.95, abs=3 * 0.0126 + 0.01)


@pytest.mark.parametrize('n', [1, 2, 9])
def test_few_values_have_no_interval(n):
  values = np.random.default_rng(n).normal(30, 4, n)
  assert statistics.bootstrap_interval(values) is None
  summary = statistics.summarize(values)
  assert summary['low'] is None
  assert summary['high'] is None
  assert summary['mean'] == pytest.approx(values.mean())
  assert statistics.describe_mean(summary) == f'{values.mean():.2f}'
  json.dumps(summary, allow_nan=False)
  with pytest.raises(ValueError, match='no values'):
    statistics.bootstrap_interval([])


@pytest.mark.parametrize('broken', [np.inf, -np.inf, np.nan])
def test_values_without_a_mean_have_no_interval(broken):
  values = np.arange(20.0)
  values[7] = broken
  assert statistics.bootstrap_interval(values) is None
  summary = statistics.summarize(values)
  assert not np.isfinite(summary['mean'])
  assert summary['low'] is None


def test_equal_values_have_an_interval_of_one_value():
  assert statistics.bootstrap_interval([100.0] * 12) == (100, 100)


def test_an_interval_in_words():
  summary = statistics.summarize(np.arange(40.0))
  low, high = summary['low'], summary['high']
  assert statistics.describe_mean(summary) == f'19.50 ({low:.2f} to {high:.2f})'
  assert statistics.describe_interval(summary, str) == f'{low} to {high}'


def test_summarize():
  values = np.random.default_rng(8).random(100).astype(np.float32)
  summary = statistics.summarize(jnp.asarray(values))
  assert list(summary) == ['mean', 'low', 'high', 'count']
  assert summary['mean'] == pytest.approx(values.astype(np.float64).mean())
  assert (summary['low'], summary['high']) == statistics.bootstrap_interval(
    values
  )
  assert summary['low'] < summary['mean'] < summary['high']
  assert summary['count'] == 100
  assert summary == statistics.summarize(values[::-1])


def test_a_broken_image_shows_in_the_summary():
  assert np.isnan(statistics.summarize([20.0, np.nan])['mean'])
