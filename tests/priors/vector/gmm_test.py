"""Gaussian mixtures, against scikit-learn; and EM batch by batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import draw, gmm
from lasers_jax.priors.vector.gmm import GMM
from tests.priors.vector.grid import mass

KEY = jax.random.key(2)


class Planted:
  """A mixture of three Gaussians that is known."""

  def __init__(self, d, seed=0):
    random = np.random.default_rng(seed)
    self.weights = np.array([0.5, 0.3, 0.2])
    self.means = 3 * random.normal(size=(3, d))
    self.mixing = np.eye(d) + random.normal(size=(3, d, d)) / np.sqrt(4 * d)
    self.covariances = self.mixing @ self.mixing.swapaxes(1, 2)

  def draw(self, n, seed):
    random = np.random.default_rng(seed)
    chosen = random.choice(3, n, p=self.weights)
    noise = random.normal(size=(n, self.means.shape[1]))
    x = self.means[chosen] + np.einsum('nij,nj->ni', self.mixing[chosen], noise)
    return x.astype(np.float32)

  def log_prob(self, x):
    parts = zip(self.weights, self.means, self.covariances, strict=True)
    densities = [w * multivariate_normal.pdf(x, m, c) for w, m, c in parts]
    return np.log(sum(densities))


EIGHT, FLAT = Planted(8), Planted(2)
LATENTS, FRESH = EIGHT.draw(3000, 1), EIGHT.draw(3000, 2)
IN_PLANE = FLAT.draw(500, 1)


@pytest.fixture(scope='module')
def batches():
  """In five batches, fitted."""
  prior = GMM(3, 'batches', batch_size=600)
  return prior, prior.fit(LATENTS)


def peer(k=3, **options):
  return GaussianMixture(k, max_iter=200, random_state=0, **options)


def order(means):
  """The permutation that brings components to the order of EIGHT."""
  distances = np.linalg.norm(EIGHT.means[:, None] - means[None], axis=-1)
  nearest = distances.argmin(axis=1)
  assert len(set(nearest)) == 3
  return nearest


def test_the_whole_fit_is_scikit_learns():
  prior = GMM(3)
  log_prob = prior.log_prob(prior.fit(LATENTS), FRESH)
  expected = peer().fit(LATENTS.astype(np.float64)).score_samples(FRESH)
  np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-4)


def test_batches_reach_the_likelihood_of_scikit_learn(batches):
  prior, state = batches
  theirs = peer().fit(LATENTS.astype(np.float64))
  for x in (LATENTS, FRESH):
    likelihood = float(prior.log_prob(state, x).mean())
    assert likelihood == pytest.approx(theirs.score(x), abs=0.05)
  true = EIGHT.log_prob(FRESH).mean()
  assert likelihood == pytest.approx(true, abs=0.1)


def test_batches_recover_what_was_planted(batches):
  _, state = batches
  found = order(state['means'])
  np.testing.assert_allclose(state['means'][found], EIGHT.means, atol=0.2)
  np.testing.assert_allclose(state['weights'][found], EIGHT.weights, atol=0.03)
  factors = state['cholesky'][found]
  np.testing.assert_array_equal(factors, np.tril(factors))
  covariances = factors @ factors.swapaxes(1, 2)
  np.testing.assert_allclose(covariances, EIGHT.covariances, atol=0.4)


def test_one_batch_of_all_is_plain_em():
  prior = GMM(3, 'batches', nats=1e-5)
  state = prior.fit(LATENTS)
  theirs = peer(tol=1e-5).fit(LATENTS.astype(np.float64))
  found, expected = order(state['means']), order(theirs.means_)
  np.testing.assert_allclose(
    state['means'][found], theirs.means_[expected], atol=1e-3
  )
  factors = state['cholesky'][found]
  np.testing.assert_allclose(
    factors @ factors.swapaxes(1, 2),
    theirs.covariances_[expected],
    rtol=1e-3,
    atol=2e-3,
  )


def test_steps_are_those_of_running_averages():
  # As the paper has them: averages of r, r x and r x xᵀ. float64 keeps them.
  x = IN_PLANE.astype(np.float64)
  frame = gmm.Frame(np.zeros(2), np.eye(2), np.eye(2))
  weights, means = np.full(3, 1 / 3), x[:3]
  covariances = np.stack([np.eye(2)] * 3)
  mixture = gmm.Mixture(
    *(jnp.asarray(p, jnp.float32) for p in (weights, means, covariances))
  )
  first = weights[:, None] * means
  outer = np.einsum('ki,kj->kij', means, means)
  second = weights[:, None, None] * (covariances + outer)
  for rows, rate in ((x[:100], 0.7), (x[100:200], 0.4)):
    parts = zip(weights, means, covariances, strict=True)
    joint = [w * multivariate_normal.pdf(rows, m, c) for w, m, c in parts]
    r = np.stack(joint) / sum(joint)
    mixture, likelihood = gmm._update(mixture, rows, frame, rate)
    assert float(likelihood) == pytest.approx(np.log(sum(joint)).mean(), 1e-4)
    weights = (1 - rate) * weights + rate * r.mean(axis=1)
    first = (1 - rate) * first + rate * r @ rows / len(rows)
    raw = np.einsum('kn,ni,nj->kij', r, rows, rows) / len(rows)
    second = (1 - rate) * second + rate * raw
    means = first / weights[:, None]
    covariances = second / weights[:, None, None]
    covariances -= np.einsum('ki,kj->kij', means, means)
  parts = zip(mixture, (weights, means, covariances), strict=True)
  for found, expected in parts:
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('em', gmm.WAYS)
def test_the_density_integrates_to_one(em):
  prior = GMM(3, em, iterations=5, batch_size=100)
  total = mass(prior, prior.fit(IN_PLANE), IN_PLANE)
  assert total == pytest.approx(1, abs=2e-3)


def test_samples_have_the_moments_of_the_mixture():
  state = {
    'weights': EIGHT.weights.astype(np.float32),
    'means': EIGHT.means.astype(np.float32),
    'cholesky': np.linalg.cholesky(EIGHT.covariances).astype(np.float32),
  }
  x = np.asarray(draw(GMM(3), state, KEY, 40_000))
  assert x.shape == (40_000, 8)
  assert x.dtype == np.float32
  distances = np.linalg.norm(x[:, None] - EIGHT.means[None], axis=-1)
  nearest = distances.argmin(axis=1)
  shares = np.bincount(nearest, minlength=3) / len(x)
  np.testing.assert_allclose(shares, EIGHT.weights, atol=0.01)
  for k in range(3):
    rows = x[nearest == k]
    np.testing.assert_allclose(rows.mean(axis=0), EIGHT.means[k], atol=0.1)
    expected = EIGHT.covariances[k]
    np.testing.assert_allclose(np.cov(rows.T), expected, atol=0.15)


def test_a_component_without_weight_gives_nothing():
  state = {
    'weights': np.array([0, 1, 0], np.float32),
    'means': np.array([[90, 0], [0, 0], [-90, 0]], np.float32),
    'cholesky': np.stack([np.eye(2, dtype=np.float32)] * 3),
  }
  x = draw(GMM(3), state, KEY, 500)
  assert np.abs(x).max() < 10
  expected = multivariate_normal.logpdf(x, np.zeros(2), np.eye(2))
  log_prob = GMM(3).log_prob(state, x)
  np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


@pytest.mark.parametrize('em', gmm.WAYS)
def test_the_seed_decides(em):
  prior = GMM(3, em, iterations=3, batch_size=100)
  state, again = prior.fit(IN_PLANE, 3), prior.fit(IN_PLANE, 3)
  for name in state:
    assert state[name].dtype == np.float32
    np.testing.assert_array_equal(state[name], again[name])
  other = prior.fit(IN_PLANE, 4)
  assert not np.array_equal(other['means'], state['means'])


def test_latents_that_hardly_span_the_space():
  # Far from zero, of two directions in five, and one that never changes.
  maps = np.random.default_rng(0).normal(size=(2, 5))
  latents = 50 * IN_PLANE @ maps + 500
  latents[:, 4] = 7
  prior = GMM(3, 'batches', iterations=30, batch_size=100)
  state = prior.fit(latents)
  assert all(np.isfinite(x).all() for x in state.values())
  x = np.asarray(draw(prior, state, KEY, 4000))
  np.testing.assert_allclose(x[:, 4], 7, atol=0.01)
  spread = latents.std(axis=0)[:4]
  assert (np.abs(x.mean(0) - latents.mean(0))[:4] < 0.15 * spread).all()
  np.testing.assert_allclose(x.std(axis=0)[:4], spread, rtol=0.15)


def test_more_components_than_distinct_latents():
  latents = np.repeat(IN_PLANE[:2], 50, axis=0)
  for em in gmm.WAYS:
    prior = GMM(3, em, iterations=5)
    state = prior.fit(latents)
    assert np.isfinite(np.asarray(prior.log_prob(state, latents))).all()
    x = np.asarray(draw(prior, state, KEY, 500))
    distances = np.linalg.norm(x[:, None] - latents[None, ::50], axis=-1)
    assert distances.min(axis=1).max() < 0.05


def test_the_log_says_how_it_ended(log):
  GMM(3, iterations=1).fit(IN_PLANE)
  for fields in ({'iterations': 2, 'nats': 0}, {'nats': 1e3}):
    GMM(3, 'batches', batch_size=100, **fields).fit(IN_PLANE)
  assert [line.partition(':')[0] for line in log] == [
    'mixture stopped after 1 iterations',
    'mixture goes on after 1 passes',
    'mixture stopped after 2 passes',
    'mixture goes on after 1 passes',
    'mixture converged after 2 passes',
  ]
  for em in gmm.WAYS:
    prior = GMM(3, em, batch_size=100)
    state = prior.fit(IN_PLANE)
    logged = float(log[-1].partition(': ')[2].split()[0])
    likelihood = float(prior.log_prob(state, IN_PLANE).mean())
    assert logged == pytest.approx(likelihood, abs=0.02)


@pytest.mark.parametrize('em', gmm.WAYS)
def test_fewer_latents_than_components_are_refused(em):
  with pytest.raises(InputError) as error:
    GMM(10, em).fit(LATENTS[:7])
  assert str(error.value) == (
    '7 latents are too few for a mixture of 10 components: it takes 10 at '
    'least, or fewer components'
  )
  with pytest.raises(InputError, match='1 latents are too few .* takes 2'):
    GMM(1, em).fit(LATENTS[:1])


@pytest.mark.parametrize('em', gmm.WAYS)
def test_nan_is_refused(em):
  latents = LATENTS[:20].copy()
  latents[3, 1] = np.nan
  with pytest.raises(InputError, match='NaN .* row 3'):
    GMM(2, em).fit(latents)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'components': 0}, 'components is 0: .* at least 1'),
    ({'em': 'half'}, "em must be one of .*'full', 'batches'.*: 'half'"),
    ({'iterations': 0}, 'iterations is 0: .* at least 1'),
    ({'batch_size': 0}, 'batch_size is 0: .* at least 1'),
    ({'nats': -1}, 'nats is -1: .* at least 0'),
    ({'nats': float('nan')}, 'nats is nan: .* a finite number'),
  ],
)
def test_bad_settings_are_refused(fields, message):
  with pytest.raises(InputError, match=message):
    GMM(**fields)


def test_points_have_the_width_of_latents(batches):
  prior, state = batches
  with pytest.raises(ValueError, match=r'points must be \[m, 8\], got'):
    prior.log_prob(state, np.zeros((4, 2)))
