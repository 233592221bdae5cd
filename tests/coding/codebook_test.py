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
  alone = [nearest(signals[i : i + 1], codebook)[0] for i in range(0, N, 50)]
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


@pytest.mark.parametrize('decay', [0.0, 0.5, 0.99])
def test_a_code_that_nothing_chooses_stays_to_the_last_bit(decay):
  signals, start = map(jnp.asarray, problem(5))
  chosen = np.arange(N, dtype=np.int32) % (K // 2)
  statistics, codes = CodebookStatistics(jnp.ones(K), start), start
  for _ in range(30):
    statistics, codes = coding.update_codebook(
      statistics, signals, chosen, decay, codes=codes
    )
  np.testing.assert_array_equal(codes[K // 2 :], start[K // 2 :])
  assert np.all(codes[: K // 2] != start[: K // 2])
  # The statistics forget it all the same: it is dead.
  np.testing.assert_allclose(
    statistics.counts[K // 2 :], decay**30, rtol=1e-4, atol=0
  )


def test_means_alone_say_where_a_code_is_that_nothing_chooses():
  signals, start = map(jnp.asarray, problem(5))
  statistics = CodebookStatistics(jnp.full(K, 2.0), 2 * start)
  for _ in range(100):
    statistics, codes = coding.update_codebook(
      statistics, signals, jnp.zeros(N, jnp.int32), 0.99
    )
  np.testing.assert_allclose(codes[1:], start[1:], rtol=1e-5)


STRETCH = np.linspace(0.5, 1.5, D)
SHIFT = np.linspace(-1.0, 2.0, D)
EVEN = np.ones(K, np.float32)


@pytest.fixture(scope='module')
def book():
  """Codes at rest: the means of very many signals."""
  signals = np.random.default_rng(6).standard_normal((20_000, D))
  codes, _ = coding.kmeans(jax.random.key(0), jnp.asarray(signals, 'f4'), K, 40)
  return np.asarray(codes)


def batch_of(book, seed=7, n=N):
  signals = np.random.default_rng(seed).standard_normal((n, D)).astype('f4')
  return signals, coding.nearest_code(signals, book)


@pytest.mark.parametrize('seed', range(5))
def test_codes_of_signals_at_rest_do_not_move_by_a_bit(book, seed):
  signals, indices = batch_of(book, 10 + seed)
  moved = coding.follow_signals(book, EVEN, signals, indices)
  np.testing.assert_array_equal(moved, book)


@pytest.mark.parametrize(
  'stretch, shift',
  [(0.5, 0.0), (2.0, 0.0), (1.0, SHIFT), (STRETCH, 0.0), (STRETCH, SHIFT)],
)
def test_codes_follow_signals_that_are_scaled_and_shifted(book, stretch, shift):
  signals, indices = batch_of(book)
  # What is least in float64, in each dimension by itself.
  signals = np.float32(stretch * signals + shift)
  moved = np.stack(
    [
      np.polyval(np.polyfit(book[indices, j], np.float64(signals[:, j]), 1), x)
      for j, x in enumerate(np.float64(book).T)
    ],
    axis=1,
  )
  found = coding.follow_signals(book, EVEN, signals, indices)
  # All but what chance explains of the motion, and that is little.
  ratio = np.sum((found - book) * (moved - book)) / np.sum((moved - book) ** 2)
  assert 0.8 < ratio < 1
  np.testing.assert_allclose(
    found - book, ratio * (moved - book), rtol=1e-3, atol=1e-4
  )
  apart = np.abs(moved - (stretch * book + shift)).max()
  assert apart < 0.2  # in deviations of the signals at rest


def test_padding_is_not_followed(book):
  signals, indices = batch_of(book)
  padded = np.where(np.arange(N)[:, None] < N // 2, signals, 9.0)
  weights = jnp.asarray(np.arange(N) < N // 2, jnp.float32)
  moved = coding.follow_signals(book, EVEN, padded, indices, weights)
  np.testing.assert_array_equal(moved, book)
  moved = coding.follow_signals(book, EVEN, padded, indices)
  assert np.abs(moved - book).max() > 1


def test_what_is_not_in_use_does_not_follow(book):
  signals, indices = batch_of(book)
  far = np.concatenate([book, np.full((2, D), 50.0, 'f4')])
  use = np.append(EVEN, [0.0, 0.01])
  moved = coding.follow_signals(far, use, 0.5 * signals, indices, below=0.02)
  np.testing.assert_array_equal(moved[K:], far[K:])
  # In use, if not in this batch, it does.
  moved = coding.follow_signals(
    far, np.append(EVEN, [0.0, 0.03]), 0.5 * signals, indices, below=0.02
  )
  np.testing.assert_array_equal(moved[K], far[K])
  np.testing.assert_allclose(moved[K + 1], 0.5 * far[K + 1], rtol=0.1)


def test_few_codes_do_not_take_the_book_along(book):
  """Signals in three clusters move the codes that they choose, and no other."""
  places = 3 * np.random.default_rng(8).standard_normal((3, D))
  noise = np.random.default_rng(9).standard_normal((N, D))
  signals = np.float32(places[np.arange(N) % 3] + 0.01 * noise)
  indices = coding.nearest_code(signals, book)
  moved = coding.follow_signals(book, EVEN, signals, indices)
  rest = np.setdiff1d(np.arange(K), indices)
  assert len(rest) >= K - 3
  np.testing.assert_array_equal(moved[rest], book[rest])


def test_rounding_of_a_constant_dimension_moves_nothing(book):
  signals, indices = batch_of(book)
  signals[:, 0] = np.float32(1 / 3)
  book = book.copy()
  book[:, 0] = np.nextafter(np.float32(1 / 3), np.float32(1))
  moved = coding.follow_signals(book, EVEN, signals, indices)
  np.testing.assert_array_equal(moved, book)


@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e25])
def test_following_keeps_codes_finite(book, scale):
  signals, indices = batch_of(book)
  signals, codes = scale * jnp.asarray(signals), scale * jnp.asarray(book)
  moved = coding.follow_signals(codes, EVEN, 3 * signals, indices)
  assert np.isfinite(moved).all()
  one = jnp.full((N, D), scale)
  moved = coding.follow_signals(book, EVEN, one, jnp.zeros(N, jnp.int32))
  assert np.isfinite(moved).all()


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
  assert np.isfinite(codes).all()
  assert np.abs(codes).max() < 0.1
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
