import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lasers_jax.coding.anchors import ANCHORS, DISTANCES, anchor_rate

N, D, K = 37, 8, 16


def normal(shape, seed):
  generator = np.random.default_rng(seed)
  lengths = generator.uniform(0.2, 3, (shape[0], 1))
  return jnp.asarray(lengths * generator.standard_normal(shape), jnp.float32)


@pytest.fixture(scope='module')
def arrays():
  return normal((N, D), 0), normal((K, D), 1)


def distances(name, signals, codes):
  return cdist(signals, codes, {'cosine': 'cosine'}.get(name, 'sqeuclidean'))


@pytest.mark.parametrize('name', DISTANCES)
def test_the_nearest_code(name, arrays):
  found = DISTANCES[name].nearest(*arrays)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, distances(name, *arrays).argmin(axis=1))


@pytest.mark.parametrize('name', DISTANCES)
def test_similarities_are_distances_turned_round(name, arrays):
  found = np.asarray(DISTANCES[name].similarity(*arrays), np.float64)
  total = found + distances(name, *arrays)
  # Equal for all codes of a signal.
  np.testing.assert_allclose(total - total[:, :1], 0, atol=1e-4)


def test_the_length_of_a_vector_is_nothing_to_its_angle(arrays):
  signals, codes = arrays
  nearest = DISTANCES['cosine'].nearest
  stretched = nearest(7 * signals, codes * jnp.arange(1.0, K + 1)[:, None])
  np.testing.assert_array_equal(stretched, nearest(signals, codes))


def test_how_far_codes_go_to_their_anchors():
  """Use in units of the mean use; by hand from the paper's formula."""
  use = jnp.array([0.0, 0.001, 0.01, 1.0])
  found = anchor_rate(use, 0.99)
  np.testing.assert_allclose(found[:3], [0.999, 0.3675, 4.535e-5], rtol=1e-3)
  assert found[3] == 0
  # The paper's: exp(-N_k K 10 / (1 - γ) - 1e-3), N_k the share of the signals.
  n_k = np.array([0.0, 1e-4, 3e-4])
  expected = np.exp(-n_k * K * 10 / (1 - 0.9) - 1e-3)
  found = anchor_rate(jnp.asarray(n_k * K, jnp.float32), 0.9)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('distance', DISTANCES)
def test_closest(distance, arrays):
  signals, codes = arrays
  rows = ANCHORS['closest'](None, codes, signals, DISTANCES[distance])
  expected = distances(distance, signals, codes).argmin(axis=0)
  np.testing.assert_array_equal(rows, expected)


def test_random_draws_each_signal_once(arrays):
  signals, codes = arrays
  draw = ANCHORS['random']
  rows = draw(jax.random.key(0), codes, signals, None)
  assert rows.shape == (K,)
  assert rows.dtype == jnp.int32
  assert len(np.unique(rows)) == K
  assert 0 <= rows.min() <= rows.max() < N
  few = draw(jax.random.key(0), codes, signals[:3], None)
  assert set(np.asarray(few)) == {0, 1, 2}


@pytest.mark.parametrize('distance', DISTANCES)
def test_probrandom_draws_by_the_softmax(distance):
  signals, code = normal((5, D), 3) / 3, normal((1, D), 4)
  draws = 4000
  codes = jnp.broadcast_to(code, (draws, D))
  draw = ANCHORS['probrandom']
  rows = draw(jax.random.key(1), codes, signals, DISTANCES[distance])
  weights = np.exp(-distances(distance, signals, code)[:, 0])
  share = np.bincount(rows, minlength=5) / draws
  expected = weights / weights.sum()
  deviation = np.sqrt(expected * (1 - expected) / draws)
  assert np.all(np.abs(share - expected) < 4 * deviation + 1e-3)
  assert np.ptp(expected) > 0.1


def test_probrandom_takes_the_only_near_signal(arrays):
  signals, codes = arrays
  z = jnp.concatenate([100 * signals, codes + 1e-3])
  draw = ANCHORS['probrandom']
  rows = draw(jax.random.key(0), codes * 100, 100 * z, DISTANCES['euclidean'])
  closest = ANCHORS['closest'](
    None, codes * 100, 100 * z, DISTANCES['euclidean']
  )
  np.testing.assert_array_equal(rows, closest)


@pytest.mark.parametrize('distance', DISTANCES)
@pytest.mark.parametrize('name', ANCHORS)
def test_anchors_of_anything_are_signals(name, distance):
  for signals in (jnp.zeros((N, D)), 1e3 * jnp.ones((N, D))):
    for codes in (jnp.zeros((K, D)), 1e3 * jnp.ones((K, D))):
      key = jax.random.key(0)
      rows = ANCHORS[name](key, codes, signals, DISTANCES[distance])
      assert rows.shape == (K,)
      assert rows.min() >= 0
      assert rows.max() < N


def test_draws_are_those_of_their_key(arrays):
  signals, codes = arrays
  for name in ('random', 'probrandom'):
    one, again, other = (
      ANCHORS[name](jax.random.key(seed), codes, signals, DISTANCES['cosine'])
      for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
