"""Kernel density estimation, against scikit-learn; and its bandwidth."""

import jax
import numpy as np
import pytest
import scipy.special
from sklearn.neighbors import KernelDensity

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import draw, kde
from lasers_jax.priors.vector.gaussian import moments, principal_axes
from lasers_jax.priors.vector.kde import KDE
from tests.priors.vector.grid import mass

KEY = jax.random.key(4)
MIX = np.array([[2.0, 0.5], [0.0, 0.3]], np.float32)


def clusters(n, seed):
  """Three of them in two dimensions, which depend on each other."""
  random = np.random.default_rng(seed)
  centres = np.array([[-2, 0], [2, 0], [0, 2.5]])[random.integers(3, size=n)]
  points = centres + 0.5 * random.normal(size=(n, 2))
  return points.astype(np.float32) @ MIX + np.float32([3, -8])


LATENTS = clusters(600, 0)


def test_log_prob_is_scikit_learns():
  latents = clusters(4100, 0)  # more than are looked at together
  axes = principal_axes(latents)

  def white(x):
    return (x - axes.mean) @ axes.directions / axes.deviations

  points = clusters(600, 1)
  for h in (0.1, 0.7):
    peer = KernelDensity(bandwidth=h).fit(white(latents))
    expected = peer.score_samples(white(points))
    expected -= np.log(axes.deviations).sum()
    log_prob = KDE(h).log_prob(KDE(h).fit(latents), points)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-3)


def test_the_density_integrates_to_one():
  state = KDE(0.3).fit(LATENTS)
  total = mass(KDE(0.3), state, LATENTS, cells=100)
  assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize('n, d', [(600, 2), (300, 8)])
def test_the_chosen_bandwidth_beats_its_double_and_half(n, d):
  if d == 2:
    latents, fresh = LATENTS, clusters(600, 1)
  else:
    latents, fresh = np.random.default_rng(0).normal(size=(2, n, d))
  h = float(KDE().fit(latents)['bandwidth'])
  assert 0.05 < h < 1.5

  def likelihood(h):
    return float(KDE(h).log_prob(KDE(h).fit(latents), fresh).mean())

  best = likelihood(h)
  assert best > likelihood(2 * h) + 0.01
  assert best > likelihood(h / 2) + 0.01


def test_the_bandwidth_is_the_best_of_the_held_out(monkeypatch):
  # Held out: 0.1 of 600, but 20 at most, against 100 of the others.
  monkeypatch.setattr(kde, '_MOST_HELD', 20)
  monkeypatch.setattr(kde, '_MOST_KEPT', 100)
  state = KDE().fit(LATENTS, seed=7)
  order = np.random.default_rng(7).permutation(600)
  held, kept = LATENTS[order[540:560]], LATENTS[order[:100]]
  axes = principal_axes(LATENTS)
  held, kept = (
    (x - axes.mean) @ axes.directions / axes.deviations for x in (held, kept)
  )
  grid = 2 ** np.arange(-8, 2, 0.125)
  scores = [KernelDensity(bandwidth=h).fit(kept).score(held) for h in grid]
  assert state['bandwidth'] == pytest.approx(grid[np.argmax(scores)], rel=1e-5)
  # The state holds all latents, themselves and not a copy.
  assert state['latents'] is LATENTS


def test_samples_are_latents_with_noise_of_the_kernel():
  state = KDE(0.4).fit(LATENTS)
  points = np.asarray(draw(KDE(0.4), state, KEY, 40_000))
  mean, covariance = moments(LATENTS)
  drawn, spread = moments(points)
  np.testing.assert_allclose(drawn, mean, atol=0.04)
  np.testing.assert_allclose(spread, 1.16 * covariance, rtol=0.05, atol=0.02)
  narrow = draw(KDE(1e-5), KDE(1e-5).fit(LATENTS), KEY, 40_000)[:50]
  off = np.abs(np.asarray(narrow)[:, None] - LATENTS).max(axis=2).min(axis=1)
  assert off.max() < 1e-3


def test_a_direction_without_variance_comes_back_as_the_mean():
  latents = np.insert(LATENTS, 1, np.float32(0.7), axis=1)
  state = KDE(0.5).fit(latents)
  assert state['deviations'].shape == (2,)
  points = np.asarray(draw(KDE(0.5), state, KEY, 50))
  np.testing.assert_allclose(points[:, 1], 0.7, atol=1e-5)
  np.testing.assert_allclose(
    KDE(0.5).log_prob(state, latents),
    KDE(0.5).log_prob(KDE(0.5).fit(LATENTS), LATENTS),
    atol=1e-3,
  )


def test_two_latents_are_enough():
  assert 0 < KDE().fit(LATENTS[:2])['bandwidth'] < 8
  with pytest.raises(InputError, match='1 latents are too few: .* needs 2'):
    KDE().fit(LATENTS[:1])


def test_bad_settings_are_refused():
  for h in (0, -1, float('nan')):
    with pytest.raises(InputError, match=f'bandwidth is {h}: .* more than 0'):
      KDE(h)
  for share in (0, 1, 1.5):
    with pytest.raises(InputError, match=f'out is {share}: .* less than 1'):
      KDE(held_out=share)


@pytest.mark.parametrize('bandwidth', [2.0**-10, 0.01, 1])
@pytest.mark.parametrize(('mean', 'scale'), [(0, 1), (1000, 1), (0, 1e-4)])
def test_narrow_kernels_are_those_of_float64(mean, scale, bandwidth):
  """Points as near to a latent as the kernel is wide."""
  rng = np.random.default_rng(6)
  latents = (scale * (mean + rng.normal(size=(50, 6)))).astype(np.float32)
  prior = KDE(bandwidth)
  state = prior.fit(latents)
  points = np.asarray(prior.sample(state, jax.random.key(0), 40))
  axes = {k: np.asarray(x, np.float64) for k, x in state.items()}

  def white(x):
    turned = (x.astype(np.float64) - axes['mean']) @ axes['directions']
    return turned / axes['deviations']

  off = white(points)[:, None] - white(latents)[None]
  terms = -0.5 * np.sum(off**2, axis=2) / axes['bandwidth'] ** 2
  volume = np.log(axes['bandwidth'] * axes['deviations']).sum()
  expected = scipy.special.logsumexp(terms, axis=1)
  expected -= volume + 3 * np.log(2 * np.pi) + np.log(50)
  found = prior.log_prob(state, points)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.02)
