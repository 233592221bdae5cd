import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lasers_jax import coding
from lasers_jax.coding import CodebookStatistics
from lasers_jax.coding.search import largest

N, D, K = 500, 6, 40


def problem(seed=0, k=K):
  rng = np.random.default_rng(seed)
  return (
    rng.standard_normal((N, D)).astype(np.float32),
    rng.standard_normal((k, D)).astype(np.float32),
  )


@pytest.mark.parametrize('k', [1, 7, 40, 512])
def test_largest_is_argmax_with_the_lowest_index_of_ties(k):
  scores = np.random.default_rng(k).integers(0, 9, (200, k))
  found = largest(jnp.asarray(scores, jnp.float32))
  np.testing.assert_array_equal(found, scores.argmax(axis=1))


@pytest.mark.parametrize('k', [1, 37, 512])
def test_nearest_code_agrees_with_scipy(k):
  signals, codebook = problem(1, k)
  expected = cdist(signals, codebook).argmin(axis=1)
  np.testing.assert_array_equal(
    coding.nearest_code(signals, codebook), expected
  )


def test_codes_are_their_own_nearest():
  _, codebook = problem()
  np.testing.assert_array_equal(
    coding.nearest_code(codebook, codebook), np.arange(K)
  )


def test_nearest_code_depends_on_the_signal_alone(as_in_use):
  nearest = as_in_use(coding.nearest_code)
  signals, codebook = problem(2)
  together = nearest(signals, codebook)
  alone = [
    nearest(signals[i : i + 1], codebook)[0] for i in range(0, N, 50)
  ]
  np.testing.assert_array_equal(together[::50], alone)


def test_histogram():
  counts = coding.histogram(jnp.array([[0, 2], [2, 2]]), 4)
  np.testing.assert_array_equal(counts, [1, 0, 3, 0])
  weights = jnp.array([[0.5, 1.0], [2.0, 0.0]])
  counts = coding.histogram(jnp.array([[0, 2], [2, 2]]), 4, weights)
  np.testing.assert_array_equal(counts, [0.5, 0, 3, 0])


def test_codebook_update_agrees_with_a_float64_reference():
  signals, codebook = problem(3)
  indices = coding.nearest_code(signals, codebook)
  counts, sums = np.ones(K), np.array(codebook, float)
  statistics = CodebookStatistics(jnp.ones(K), jnp.asarray(codebook))
  one_hot = np.eye(K)[indices] * K / N
  for _ in range(3):
    statistics, moved = coding.update_codebook(
      statistics, signals, indices, 0.9
    )
    counts = 0.9 * counts + 0.1 * one_hot.sum(axis=0)
    sums = 0.9 * sums + 0.1 * one_hot.T @ signals
    np.testing.assert_allclose(statistics.counts, counts, rtol=1e-5)
    np.testing.assert_allclose(moved, sums / counts[:, None], atol=1e-5)


def test_without_memory_the_update_is_a_step_of_k_means():
  signals, codebook = problem(4)
  indices = np.asarray(coding.nearest_code(signals, codebook))
  _, moved = coding.update_codebook(
    CodebookStatistics(jnp.ones(K), jnp.asarray(codebook)),
    signals,
    indices,
    decay=0.0,
  )
  for j in np.unique(indices):
    np.testing.assert_allclose(
      moved[j], signals[indices == j].mean(axis=0), atol=1e-5
    )


def test_revivals_pair_dead_codes_with_bad_signals():
  use = jnp.array([1.0, 0.001, 2.0, 0.5, 0.0])
  errors = jnp.zeros(100).at[jnp.array([10, 20, 30])].set(1.0)
  revival = coding.choose_revivals(jax.random.key(0), use, errors, 0.1, 3)
  np.testing.assert_array_equal(revival.which, [4, 1, 3])
  np.testing.assert_array_equal(revival.dead, [True, True, False])
  assert set(revival.rows.tolist()) == {10, 20, 30}


def test_revivals_are_drawn_by_squared_error():
  errors = jnp.array([1.0, 3.0])

  @jax.vmap
  def draw(key):
    revival = coding.choose_revivals(key, jnp.ones(4), errors, 0.1, 1)
    return revival.rows[0]

  draws = draw(jax.random.split(jax.random.key(0), 400))
  assert abs(np.mean(draws) - 0.75) < 0.08


def test_revivals_never_take_a_signal_twice():
  revival = coding.choose_revivals(
    jax.random.key(0), jnp.zeros(50), jnp.ones(30), 0.1, 40
  )
  assert len(set(revival.rows.tolist())) == len(revival.rows) == 30


def test_signals_without_error_revive_nothing():
  use = jnp.array([0.0, 0.0, 0.0, 1.0])
  revival = coding.choose_revivals(
    jax.random.key(0), use, jnp.array([0.0, 2.0, 0.0]), 0.1, 3
  )
  assert revival.dead.tolist() == (revival.rows == 1).tolist()


def test_kmeans_agrees_with_scikit_learn():
  cluster = pytest.importorskip('sklearn.cluster')
  rng = np.random.default_rng(0)
  signals = rng.standard_normal((200, 3)).astype(np.float32)
  start = coding.pick_signals(jax.random.key(0), signals, 5)
  codes, use = coding.kmeans(jax.random.key(0), signals, 5, rounds=100)
  reference = cluster.KMeans(5, init=np.asarray(start), n_init=1, tol=0)
  reference.fit(signals)
  np.testing.assert_allclose(codes, reference.cluster_centers_, atol=1e-5)
  counts = np.bincount(reference.labels_, minlength=5)
  np.testing.assert_allclose(use, counts * 5 / 200, rtol=1e-6)


def test_kmeans_leaves_codes_that_nothing_chooses():
  signals = np.zeros((4, 2), np.float32)
  codes, use = coding.kmeans(jax.random.key(0), signals, 8)
  assert np.isfinite(codes).all() and np.abs(codes).max() < 0.1
  assert use.sum() == pytest.approx(8)


@pytest.mark.parametrize('scale', [1.0, 0.0, 1e6])
def test_sinkhorn_has_the_marginals_of_a_plan(scale):
  rng = np.random.default_rng(0)
  costs = jnp.asarray(scale * rng.uniform(size=(60, 6)), jnp.float32)
  plan = coding.sinkhorn(costs, rounds=50)
  np.testing.assert_allclose(plan.sum(axis=1), 1 / 60, rtol=1e-4)
  np.testing.assert_allclose(plan.sum(axis=0), 1 / 6, rtol=1e-3)


def test_sinkhorn_is_the_fixed_point_of_scaling():
  rng = np.random.default_rng(0)
  costs = rng.uniform(size=(12, 4))
  standard = (costs - costs.mean()) / (costs.std() + 1e-6)
  plan = np.exp(-10 * (standard - standard.min()))
  for _ in range(5):
    plan /= 4 * plan.sum(axis=0)
    plan /= 12 * plan.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    coding.sinkhorn(jnp.asarray(costs, jnp.float32)), plan, rtol=1e-4
  )
