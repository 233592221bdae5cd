"""Flow matching, on two Gaussians that a single one cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import draw, flow
from lasers_jax.priors.vector.flow import FlowMatching
from lasers_jax.priors.vector.gaussian import Gaussian

KEY = jax.random.key(3)
CENTRES = np.array([[-3, 11], [3, 9]])
DEVIATIONS = np.array([0.6, 0.4])
GOOD = FlowMatching(64, 2, 400, 256, 1e-2, sampling_steps=20)
SMALL = FlowMatching(8, 1, steps=30, batch_size=16, sampling_steps=2)


def two_gaussians(n, seed):
  """Three tenths about the first centre, the others about the second."""
  random = np.random.default_rng(seed)
  chosen = (random.random(n) > 0.3).astype(int)
  noise = DEVIATIONS * random.normal(size=(n, 2))
  return (CENTRES[chosen] + noise).astype(np.float32)


LATENTS = two_gaussians(4000, 0)


@pytest.fixture(scope='module')
def samples():
  return np.asarray(draw(GOOD, GOOD.fit(LATENTS), KEY, 4000))


def distance(a, b):
  """The Wasserstein distance of two sets of as many points, exactly."""
  costs = cdist(a, b)
  return costs[linear_sum_assignment(costs)].mean()


def test_both_gaussians_come_back(samples):
  assert samples.shape == (4000, 2)
  assert samples.dtype == np.float32
  second = (samples[:, 0] > 0).astype(int)
  assert second.mean() == pytest.approx(0.7, abs=0.05)
  away = np.abs(samples - CENTRES[second])
  assert (away > 4 * DEVIATIONS).any(axis=1).mean() < 0.03
  for k in (0, 1):
    rows = samples[second == k]
    # The few that are between the two widen them.
    middle = np.median(rows, axis=0)
    np.testing.assert_allclose(middle, CENTRES[k], atol=0.15)
    low, high = np.quantile(rows, [0.159, 0.841], axis=0)
    np.testing.assert_allclose((high - low) / 2, DEVIATIONS, rtol=0.25)


def test_it_is_nearer_to_fresh_latents_than_one_gaussian(samples):
  fresh, other = two_gaussians(800, 1), two_gaussians(800, 2)
  gaussian = draw(Gaussian(), Gaussian().fit(LATENTS), KEY, 800)
  rival, floor = distance(gaussian, fresh), distance(other, fresh)
  assert distance(samples[:800], fresh) < floor + 0.25 * (rival - floor)


def test_the_flow_is_followed_to_second_order():
  state = {'mean': np.zeros(2), 'scale': np.ones(2)}

  class Turning(FlowMatching):
    def velocity(self, state, x, t):
      return 2 * t * x @ jnp.array([[0.0, 1.0], [-1.0, 0.0]])

  # It turns by t² in all: one radian.
  turn = np.array([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
  noise = jax.random.normal(KEY, (100, 2))
  errors = [
    np.abs(Turning(sampling_steps=n).sample(state, KEY, 100) - noise @ turn)
    for n in (10, 20)
  ]
  assert errors[1].max() < 0.01
  assert errors[0].max() / errors[1].max() == pytest.approx(4, rel=0.2)


def test_the_seed_decides():
  state, again = SMALL.fit(LATENTS, 1), SMALL.fit(LATENTS, 1)
  other = SMALL.fit(LATENTS, 2)
  assert set(state) == {
    f'{layer}/{name}'
    for layer in ('first', 'layer0', 'last')
    for name in ('kernel', 'bias')
  } | {'mean', 'scale'}
  for name, value in state.items():
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, again[name])
  assert not np.array_equal(state['last/kernel'], other['last/kernel'])


def test_stretches_change_nothing_but_the_log(log, monkeypatch):
  at_once = SMALL.fit(LATENTS)
  monkeypatch.setattr(flow, '_STRETCH', 15)
  in_two = SMALL.fit(LATENTS)
  for name, value in at_once.items():
    np.testing.assert_allclose(in_two[name], value, rtol=1e-4, atol=1e-6)
  steps = [line.partition(', ')[0] for line in log]
  assert steps == [f'flow: step {x} of 30' for x in (30, 15, 30)]
  assert all(0 < float(line.split()[-1]) < 4 for line in log)


def test_a_dimension_that_never_changes_stays():
  latents = LATENTS.copy()
  latents[:, 1] = 0.1
  x = np.asarray(draw(SMALL, SMALL.fit(latents), KEY, 50))
  np.testing.assert_array_equal(x[:, 1], np.full(50, 0.1, np.float32))
  assert x[:, 0].std() > 0.1


def test_units_do_not_matter():
  state = SMALL.fit(LATENTS)
  scaled = SMALL.fit(1000 * LATENTS)
  expected = 1000 * np.asarray(draw(SMALL, state, KEY, 50))
  np.testing.assert_allclose(draw(SMALL, scaled, KEY, 50), expected, rtol=1e-3)


def test_one_latent_is_enough():
  x = draw(SMALL, SMALL.fit(LATENTS[:1]), KEY, 50)
  np.testing.assert_array_equal(x, np.repeat(LATENTS[:1], 50, axis=0))


def test_it_has_no_density():
  assert not FlowMatching.has_density
  with pytest.raises(NotImplementedError, match='FlowMatching has no density'):
    SMALL.log_prob({}, LATENTS)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({name: 0}, f'{name} is 0: .* at least 1')
    for name in ('width', 'depth', 'steps', 'batch_size', 'sampling_steps')
  ]
  + [({'learning_rate': 0}, 'learning_rate is 0: .* more than 0')],
)
def test_bad_settings_are_refused(fields, message):
  with pytest.raises(InputError, match=message):
    FlowMatching(**fields)


def test_nan_is_refused():
  latents = LATENTS[:20].copy()
  latents[3, 1] = np.inf
  with pytest.raises(InputError, match='infinite .* row 3'):
    SMALL.fit(latents)
