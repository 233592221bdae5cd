"""The product PMF: its marginals, its density, and what it does not keep."""

import jax
import numpy as np
import pytest
import scipy.stats

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import draw
from lasers_jax.priors.vector.product import ProductPMF
from tests.priors.vector.grid import mass

KEY = jax.random.key(6)
RANDOM = np.random.default_rng(3)


def ring(n, width=5):
  """Two directions that depend on each other, and others that do not."""
  angle = RANDOM.uniform(0, 2 * np.pi, n)
  pair = 4 * np.stack([np.cos(angle), 0.8 * np.sin(angle)], axis=1)
  rest = RANDOM.exponential([1.0, 0.5, 0.2, 0.1, 0.05], (n, 5))
  return np.concatenate([pair, rest], axis=1)[:, :width].astype(np.float32)


LATENTS = ring(3000)


@pytest.mark.parametrize('block, k', [(1, 32), (2, 16), (3, 8)])
def test_marginals_are_reproduced(block, k):
  # Of five directions, the last block of two or of three has fewer.
  prior = ProductPMF(block, k)
  state = prior.fit(LATENTS)
  points = np.asarray(draw(prior, state, KEY, 4000))
  drawn, data = (
    (x - state['mean']) @ state['directions'] for x in (points, LATENTS)
  )
  for a, b, edges in zip(drawn.T, data.T, state['edges'], strict=True):
    expected = np.histogram(b, edges)[0] * 4000 / 3000
    found = np.histogram(a, edges)[0]
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-3
    assert scipy.stats.ks_2samp(a, b).statistic < 1 / k
  # The ring is inside one block, unless a block is one direction.
  radius = np.hypot(points[:, 0] / 4, points[:, 1] / 3.2)
  assert (np.mean(np.abs(radius - 1) < 0.3) > 0.8) == (block > 1)


def test_cells_are_about_equally_full():
  state = ProductPMF(1, 16).fit(LATENTS)
  assert state['counts'].shape == (5, 16)
  assert (state['counts'].sum(axis=1) == 3000).all()
  np.testing.assert_allclose(state['counts'], 3000 / 16, atol=2)


@pytest.mark.parametrize('block', [1, 2])
def test_the_density_integrates_to_one(block):
  latents = ring(500, width=2)
  prior = ProductPMF(block, 8)
  total = mass(prior, prior.fit(latents), latents)
  assert total == pytest.approx(1, abs=0.02)


def test_the_density_is_the_share_over_the_volume():
  prior = ProductPMF(2, 4)
  state = prior.fit(LATENTS)
  edges, counts = state['edges'].astype(float), state['counts']
  expected = []
  for latent in LATENTS[:40].astype(float):
    turned = (latent - state['mean']) @ state['directions']
    log_prob, bins = 0.0, []
    for x, row in zip(turned, edges, strict=True):
      bins.append(np.flatnonzero(row <= x)[-1])
      log_prob -= np.log(row[bins[-1] + 1] - row[bins[-1]])
    cells = [bins[0] + 4 * bins[1], bins[2] + 4 * bins[3], bins[4]]
    shares = counts[np.arange(3), cells] / 3000
    expected.append(log_prob + np.log(shares).sum())
  log_prob = prior.log_prob(state, LATENTS[:40])
  np.testing.assert_allclose(log_prob, expected, atol=1e-3)
  far = prior.log_prob(state, LATENTS[:3] + np.float32([0, 0, 50, 0, 0]))
  assert np.isneginf(far).all()


def test_no_latent_is_beyond_the_edges():
  prior = ProductPMF(1, 2)
  state = prior.fit(LATENTS + 100)
  assert np.isfinite(prior.log_prob(state, LATENTS + 100)).all()


def test_samples_are_no_nearer_to_the_latents_than_new_data():
  latents, fresh = RANDOM.normal(size=(2, 1000, 6)).astype(np.float32)
  prior = ProductPMF(2, 8)
  points = np.asarray(draw(prior, prior.fit(latents), KEY, 1000))

  def nearest(x):
    return scipy.spatial.distance.cdist(x, latents).min(axis=1).mean()

  assert nearest(points) > 0.95 * nearest(fresh)


def test_a_direction_without_variance_comes_back_as_the_mean():
  # In the other, half of the latents are at each end.
  latents = np.float32([[0, 0.7], [1, 0.7]] * 20)
  prior = ProductPMF(2, 4)
  state = prior.fit(latents)
  assert state['edges'].shape == (1, 5)
  points = np.asarray(draw(prior, state, KEY, 50))
  np.testing.assert_allclose(points[:, 1], 0.7, atol=1e-5)
  assert (points[:, 0] > -0.01).all()
  assert (points[:, 0] < 1.01).all()
  assert np.isfinite(prior.log_prob(state, latents)).all()


def test_one_bin_is_a_box():
  prior = ProductPMF(2, 1)
  state = prior.fit(LATENTS)
  volume = np.ptp(state['edges'].astype(float), axis=1)
  np.testing.assert_allclose(
    prior.log_prob(state, LATENTS[:9]), -np.log(volume).sum(), rtol=1e-5
  )


def test_bad_settings_are_refused():
  with pytest.raises(InputError, match='k=17 and block=3 has 4913 cells in a'):
    ProductPMF(3, 17)
  ProductPMF(2, 64)
  for block, k in ((0, 4), (2, 0)):
    with pytest.raises(InputError, match='is 0: .* at least 1'):
      ProductPMF(block, k)
  with pytest.raises(InputError, match='all 3 latents are equal'):
    ProductPMF().fit(np.ones((3, 2)))
