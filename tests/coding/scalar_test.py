import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans

from lasers_jax.coding.scalar import (
  lloyd_levels,
  mu_law_levels,
  nearest_level,
  spread_levels,
  update_levels,
)


def step(levels, x, weights, decay):
  bins = nearest_level(x, levels.values)
  return update_levels(levels, x, bins, weights, decay)


def learned(x, count, steps=60, weights=None):
  levels = spread_levels(x, count)
  weights = jnp.ones(x.shape) if weights is None else weights
  update = jax.jit(functools.partial(step, decay=0.0))
  for _ in range(steps):
    levels = update(levels, x, weights)
  return levels


def drawn(n=20_000, seed=0):
  x = np.random.default_rng(seed).standard_normal((n // 4, 4))
  return jnp.asarray(x, jnp.float32)


def test_the_nearest_level_is_that_of_all_distances():
  values = jnp.array([-2.0, -0.5, 0.0, 3.0])
  x = drawn(400) * 2
  distances = np.abs(np.asarray(x)[..., None] - np.asarray(values))
  bins = nearest_level(x, values)
  assert bins.dtype == jnp.int32
  np.testing.assert_array_equal(bins, distances.argmin(axis=-1))
  assert nearest_level(jnp.array(-0.25), values) == 1  # the lower wins a tie


@pytest.mark.parametrize('count', [2, 4])
def test_levels_become_those_of_lloyd_and_max(count):
  """The best levels for a normal distribution, by a float64 iteration."""
  values = stats.norm.ppf((np.arange(count) + 0.5) / count)
  for _ in range(500):
    edges = [-np.inf, *(values[1:] + values[:-1]) / 2, np.inf]
    density, below = stats.norm.pdf(edges), stats.norm.cdf(edges)
    values = -np.diff(density) / np.diff(below)
  levels = learned(drawn(8000), count)
  np.testing.assert_allclose(levels.values, values, atol=0.06)
  np.testing.assert_allclose(levels.counts.sum(), 1, rtol=1e-5)


def test_levels_are_those_of_k_means_from_the_same_start():
  x = np.asarray(drawn(2000), np.float64).ravel()
  values = np.quantile(x, (np.arange(8) + 0.5) / 8)
  for _ in range(10):
    nearest = np.abs(x[:, None] - values).argmin(axis=1)
    values = np.array([x[nearest == i].mean() for i in range(8)])
  levels = learned(drawn(2000), 8, steps=10)
  np.testing.assert_allclose(levels.values, values, rtol=1e-4, atol=1e-5)


def test_a_step_moves_to_the_means_by_the_decay():
  x = jnp.array([-3.0, -1.0, 1.0, 3.0, 5.0])
  levels = spread_levels(x, 2)
  decayed = step(levels, x, jnp.ones(5), decay=0.5)
  np.testing.assert_allclose(levels.values, [-1, 3])
  # 1 lies in the middle, and counts as near the lower level.
  counts = 0.5 * np.array([0.5, 0.5]) + 0.5 * np.array([0.6, 0.4])
  sums = 0.25 * np.array([-1, 3]) + 0.5 * np.array([0.6, 0.4]) * [-1, 4]
  np.testing.assert_allclose(decayed.values, sums / counts, rtol=1e-6)


def test_scalars_without_weight_count_for_nothing():
  x = drawn(400)
  weights = jnp.ones(x.shape).at[0].set(0.0)
  one = learned(x, 4, 3, weights)
  levels = spread_levels(x, 4)
  for _ in range(3):
    levels = step(levels, x[1:], weights[1:], decay=0.0)
  np.testing.assert_allclose(one.values, levels.values, rtol=1e-5)


@pytest.mark.parametrize('x', [np.zeros((5, 2)), np.full((5, 2), 1e18)])
def test_equal_scalars_give_finite_levels_in_order(x):
  levels = learned(jnp.asarray(x, jnp.float32), 4, 3)
  assert np.isfinite(levels.values).all()
  assert (np.diff(levels.values) >= 0).all()
  np.testing.assert_allclose(levels.values[nearest_level(x, levels.values)], x)


def test_lloyd_levels_are_the_means_of_what_is_nearest():
  x = np.random.default_rng(5).laplace(size=4000).astype(np.float32)
  levels = np.asarray(lloyd_levels(jnp.asarray(x), 8, 500))
  bins = np.abs(x[:, None] - levels[None]).argmin(axis=1)
  means = [x[bins == i].mean() for i in range(8)]
  np.testing.assert_allclose(levels, means, atol=1e-4)


@pytest.mark.parametrize('count', [2, 6])
def test_lloyd_levels_lose_what_k_means_loses(count):
  x = np.random.default_rng(6).standard_normal(3000).astype(np.float32)

  def least(levels):
    return np.mean(np.min((x[:, None] - levels[None]) ** 2, axis=1))

  means = KMeans(count, n_init=5, random_state=0).fit(x[:, None])
  ours = np.asarray(lloyd_levels(jnp.asarray(x), count, 300))
  assert least(ours) <= 1.01 * means.inertia_ / len(x)


def test_mu_law_levels_span_the_scalars_evenly_about_zero():
  x = jnp.asarray([-3.0, 0.5, 1.0])
  levels = np.asarray(mu_law_levels(x, 16))
  assert levels[0] == pytest.approx(-3)
  assert levels[-1] == pytest.approx(3)
  np.testing.assert_allclose(levels, -levels[::-1], atol=1e-6)
  assert (np.diff(levels) > 0).all()


def test_mu_law_is_that_of_g_711():
  levels = np.asarray(mu_law_levels(jnp.asarray([2.0]), 9)) / 2
  companded = np.sign(levels) * np.log1p(255 * np.abs(levels)) / np.log(256)
  np.testing.assert_allclose(companded, np.linspace(-1, 1, 9), atol=1e-6)
