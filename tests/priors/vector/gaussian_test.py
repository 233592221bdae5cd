"""The normal distribution, against SciPy; and principal directions."""

import jax
import numpy as np
import pytest
import scipy.stats

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import base, draw
from lasers_jax.priors.vector.gaussian import Gaussian, moments, principal_axes
from tests.priors.vector.grid import mass

RANDOM = np.random.default_rng(1)
MIX = np.array([[2, 0, 0], [1, 0.3, 0], [-1, 0.2, 0.1]])
LATENTS = (RANDOM.normal(size=(500, 3)) @ MIX.T + [5, 0, -3]).astype(np.float32)
KEY = jax.random.key(3)


def test_moments_are_those_of_float64(monkeypatch):
  monkeypatch.setattr(base, '_CHUNK', 64)
  far = LATENTS + np.float32(1000)
  mean, covariance = moments(far)
  exact = far.astype(np.float64)
  np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-14)
  expected = np.cov(exact.T, bias=True)
  np.testing.assert_allclose(covariance, expected, rtol=1e-9, atol=1e-12)


def test_log_prob_is_scipys():
  state = Gaussian().fit(LATENTS)
  assert state['jitter'] == 0
  mean, covariance = moments(LATENTS)
  expected = scipy.stats.multivariate_normal(mean, covariance).logpdf(LATENTS)
  log_prob = Gaussian().log_prob(state, LATENTS)
  np.testing.assert_allclose(log_prob, expected, atol=2e-3)


def test_the_density_integrates_to_one():
  latents = LATENTS[:, :2]
  state = Gaussian().fit(latents)
  assert mass(Gaussian(), state, latents) == pytest.approx(1, abs=1e-3)


def test_samples_have_the_moments():
  points = np.asarray(draw(Gaussian(), Gaussian().fit(LATENTS), KEY, 40_000))
  mean, covariance = moments(LATENTS)
  drawn, spread = moments(points)
  deviations = np.sqrt(np.diag(covariance))
  assert np.abs((drawn - mean) / deviations).max() < 4 / 200
  scale = np.outer(deviations, deviations)
  assert np.abs((spread - covariance) / scale).max() < 4 * 2**0.5 / 200


@pytest.mark.parametrize('n', [1, 2, 20])
def test_a_singular_covariance_is_widened_by_what_the_state_says(n):
  # The last dimension follows from the first, beside n <= d.
  latents = np.concatenate([LATENTS, 2 * LATENTS[:, :1]], axis=1)[:n]
  state = Gaussian().fit(latents)
  covariance = np.cov(latents.T.astype(float), bias=True).reshape(4, 4)
  jitter = max(1e-6 * np.trace(covariance) / 4, 1e-12)
  assert state['jitter'] == pytest.approx(jitter, rel=1e-5)
  factor = state['cholesky'].astype(float)
  np.testing.assert_allclose(
    factor @ factor.T, covariance + jitter * np.eye(4), rtol=1e-4, atol=1e-6
  )
  points = np.asarray(draw(Gaussian(), state, KEY, 100))
  np.testing.assert_allclose(points[:, 3], 2 * points[:, 0], atol=0.05)
  assert np.isfinite(Gaussian().log_prob(state, latents)).all()


def test_principal_axes_are_those_with_variance():
  latents = np.concatenate([LATENTS, 2 * LATENTS[:, :1]], axis=1)
  axes = principal_axes(latents)
  assert axes.directions.shape == (4, 3)
  assert (np.diff(axes.deviations) < 0).all()
  np.testing.assert_allclose(
    axes.directions.T @ axes.directions, np.eye(3), atol=1e-6
  )
  turned = (latents - axes.mean) @ axes.directions / axes.deviations
  np.testing.assert_allclose(np.cov(turned.T, bias=True), np.eye(3), atol=1e-3)
  back = (turned * axes.deviations) @ axes.directions.T + axes.mean
  np.testing.assert_allclose(back, latents, atol=1e-4)
  # Two latents span one direction, whatever rounding says.
  assert principal_axes(latents[:2]).directions.shape == (4, 1)


def test_equal_latents_have_no_axes():
  with pytest.raises(InputError, match='all 7 latents are equal'):
    principal_axes(np.full((7, 3), 0.1, np.float32))
