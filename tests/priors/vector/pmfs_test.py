"""PMFS: against the paper's table written in NumPy, and its edges."""

import collections

import jax
import numpy as np
import pytest
import scipy.stats

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import draw, pmfs
from lasers_jax.priors.vector.pmfs import PMFS, VARIANTS
from tests.priors.vector.grid import mass

RANDOM = np.random.default_rng(0)
# Two clusters: many latents share a cell, and some cells stay empty.
LATENTS = np.concatenate(
  [
    RANDOM.normal([0, 0], [1, 0.5], (300, 2)),
    RANDOM.normal([4, 3], [0.3, 0.6], (100, 2)),
  ]
).astype(np.float32)
KEY = jax.random.key(2)


def reference(latents, k):
  """The share of each occupied cell, by its bins; and the ends of a cell."""
  low, high = latents.min(0).astype(float), latents.max(0).astype(float)
  width = (high - low) / k
  cells = collections.Counter()
  for latent in latents.astype(float):
    at = (latent - low) / np.where(width, width, 1)
    cells[tuple(np.minimum(np.floor(at), k - 1).astype(int))] += 1
  shares = {cell: count / len(latents) for cell, count in cells.items()}
  return shares, low, width


def cells_of(points, low, width, k):
  """Bins of samples; one on an edge, by rounding, may be in either cell."""
  at = (np.asarray(points, float) - low) / np.where(width, width, 1)
  return [tuple(x) for x in np.clip(np.floor(at), 0, k - 1).astype(int)]


@pytest.mark.parametrize('k', [1, 5, 300])
def test_the_table_is_that_of_the_paper(k):
  shares, low, width = reference(LATENTS, k)
  prior = PMFS(k)
  state = prior.fit(LATENTS)
  assert state['bins'].dtype == (np.uint8 if k <= 256 else np.uint16)
  counts = collections.Counter(map(tuple, state['bins'].tolist()))
  assert {x: count / len(LATENTS) for x, count in counts.items()} == shares
  points = LATENTS[:50]
  volume = np.prod(width)
  expected = [
    np.log(shares[cell] / volume) for cell in cells_of(points, low, width, k)
  ]
  log_prob = prior.log_prob(state, points)
  np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


def paper_draws(latents, k, n):
  """The paper's hash map: a cell by its share, then a point of it."""
  shares, low, width = reference(latents, k)
  rng = np.random.default_rng(3)
  cells = np.array([*shares])[rng.choice(len(shares), n, p=[*shares.values()])]
  return low + width * (cells + rng.uniform(size=cells.shape))


def test_a_cell_or_a_latent_in_it_is_the_same_law():
  k = 5
  shares, low, width = reference(LATENTS, k)
  assert max(shares.values()) > 0.05
  assert len(shares) > 10
  counts, places = [], []
  prior = PMFS(k)
  ours = draw(prior, prior.fit(LATENTS), KEY, 20_000)
  for points in (np.asarray(ours), paper_draws(LATENTS, k, 20_000)):
    found = collections.Counter(cells_of(points, low, width, k))
    assert set(found) <= set(shares)
    counts.append([found[cell] for cell in shares])
    places.append((points - low) / width % 1)
  # Cells of few draws in one, since the test is for larger counts.
  counts, expected = np.array(counts), 20_000 * np.array([*shares.values()])
  for row in counts:
    assert scipy.stats.chisquare(row, expected).pvalue > 0.01
  assert scipy.stats.chi2_contingency(counts).pvalue > 0.01
  for axis in range(2):
    a, b = (x[:, axis] for x in places)
    assert scipy.stats.ks_2samp(a, b).pvalue > 0.01
    assert scipy.stats.kstest(a, 'uniform').pvalue > 0.01


def test_around_stays_in_the_box_of_a_latent():
  prior = PMFS(10, 'around')
  points = np.asarray(draw(prior, prior.fit(LATENTS), KEY, 4000))[:500]
  width = np.ptp(LATENTS, axis=0) / 10
  near = np.abs(points[:, None] - LATENTS[None]) <= width / 2 * (1 + 1e-5)
  assert near.all(axis=2).any(axis=1).all()
  # The box is filled: its share within a quarter of the width is half.
  points = np.asarray(draw(prior, prior.fit(LATENTS[:2]), KEY, 4000))
  off = np.abs(points[:, None] - LATENTS[None, :2]).min(axis=1)
  width = np.ptp(LATENTS[:2], axis=0) / 10
  np.testing.assert_allclose((off < width / 4).mean(axis=0), 0.5, atol=0.04)


def test_around_counts_latents_in_the_box():
  prior = PMFS(10, 'around')
  # More latents than are looked at together; the last are of the second half.
  latents = np.concatenate([LATENTS] * 10 + [LATENTS[200:]])
  points = RANDOM.uniform(-3, 6, (300, 2)).astype(np.float32)
  half = np.ptp(LATENTS, axis=0) / 20
  near = np.abs(points[:, None] - latents[None]) <= half
  count = near.all(axis=2).sum(axis=1)
  assert (count == 0).any()
  assert count.max() > 5
  with np.errstate(divide='ignore'):
    expected = np.log(count / len(latents) / np.prod(2 * half))
  log_prob = prior.log_prob(prior.fit(latents), points)
  np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


@pytest.mark.parametrize('variant', VARIANTS)
def test_densities_integrate_to_one(variant):
  prior = PMFS(6, variant)
  total = mass(prior, prior.fit(LATENTS), LATENTS, cells=160)
  assert total == pytest.approx(1, abs=0.03)


def test_the_highest_latent_is_in_the_last_bin():
  latents = np.arange(11, dtype=np.float32)[:, None]
  prior = PMFS(10)
  state = prior.fit(latents)
  assert state['bins'].min() == 0
  assert state['bins'].max() == 9
  # The last bin holds 9 and 10, the others one each.
  expected = np.log(np.array([1.0] * 9 + [2, 2]) / 11)
  log_prob = prior.log_prob(state, latents)
  np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
  outside = prior.log_prob(state, np.array([[-0.01], [10.01]]))
  np.testing.assert_array_equal(outside, [-np.inf, -np.inf])


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_dimension_that_never_changes_stays(variant):
  latents = LATENTS.copy()
  latents[:, 1] = 0.1
  prior = PMFS(5, variant)
  state = prior.fit(latents)
  # Not compiled whole: the same small programs do for all variants.
  points = np.asarray(prior.sample(state, KEY, 5))
  np.testing.assert_array_equal(points[:, 1], np.float32(0.1))
  assert np.ptp(points[:, 0]) > 0
  # The density is over the others, and 0 off the value.
  without = prior.log_prob(prior.fit(latents[:, :1]), latents[:, :1])
  np.testing.assert_array_equal(prior.log_prob(state, latents), without)
  moved = latents + np.float32([0, 0.01])
  assert np.isneginf(prior.log_prob(state, moved)).all()


@pytest.mark.parametrize('variant', VARIANTS)
def test_one_latent_comes_back(variant):
  prior = PMFS(10, variant)
  state = prior.fit(LATENTS[:1])
  points = np.asarray(prior.sample(state, KEY, 5))
  np.testing.assert_array_equal(points, LATENTS[[0] * 5])
  log_prob = prior.log_prob(state, LATENTS[:2])
  np.testing.assert_array_equal(log_prob, [0, -np.inf])


def test_one_bin_is_the_box_of_all():
  prior = PMFS(1)
  points = np.asarray(draw(prior, prior.fit(LATENTS), KEY, 2000))
  low, high = LATENTS.min(0), LATENTS.max(0)
  assert (points >= low).all()
  assert (points <= high).all()
  for axis in range(2):
    at = (points[:, axis] - low[axis]) / (high - low)[axis]
    assert scipy.stats.kstest(at, 'uniform').pvalue > 0.01


def test_latents_far_from_zero_keep_their_cells():
  latents = LATENTS * 1e-3 + 100
  prior = PMFS(4)
  assert np.isfinite(prior.log_prob(prior.fit(latents), latents)).all()


def test_bad_settings_are_refused():
  for k in (0, -3, 65_537):
    with pytest.raises(InputError, match=f'k is {k}: .* at most 65536'):
      PMFS(k)
  with pytest.raises(InputError, match='bins, around, not .boxes.'):
    PMFS(10, 'boxes')


@pytest.mark.parametrize('k', [1, 3, 10, 1000])
@pytest.mark.parametrize(
  ('mean', 'deviation'), [(0, 1), (5, 1), (1e4, 0.01), (-1e3, 1e-4), (0, 1e-20)]
)
def test_edges_are_the_first_numbers_of_bins(mean, deviation, k):
  latents = (mean + deviation * RANDOM.normal(size=(200, 3))).astype('f4')
  latents[:, 2] = latents[0, 2]
  low, high = latents.min(axis=0), latents.max(axis=0)
  edges = pmfs._edges(low, high, k)
  assert (np.diff(edges) >= 0).all()
  np.testing.assert_array_equal(edges[:, 0], low)
  # The number below the last one is the highest.
  np.testing.assert_array_equal(np.nextafter(edges[:, -1], low), high)
  bins = pmfs._cells(edges[:, :-1].T, low, high, k).astype(int)
  below = np.nextafter(edges[:, :-1].T, np.float32(-np.inf))
  before = pmfs._cells(below, low, high, k).astype(int)
  numbers = np.arange(k)[:, None]
  inside = (high >= edges[:, :-1].T)[:, :2]
  assert (bins >= numbers)[:, :2][inside].all()
  assert (before < numbers)[1:, :2][inside[1:]].all()
