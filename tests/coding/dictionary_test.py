import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax import coding
from lasers_jax.coding import OnlineStatistics, SparseCode

N, D, K, S = 200, 8, 20, 3


def problem(seed=0):
  rng = np.random.default_rng(seed)
  signals = rng.standard_normal((N, D)).astype(np.float32)
  atoms = coding.random_dictionary(jax.random.key(seed), (D, K))
  return signals, atoms, coding.batch_omp(signals, atoms, S)


def test_normalize_atoms():
  atoms = jnp.array([[3.0, 0.0, 0.0], [4.0, 0.0, 1e-3]])
  norms = jnp.linalg.norm(coding.normalize_atoms(atoms), axis=0)
  np.testing.assert_allclose(norms, [1, 0, 1], rtol=1e-5)


def test_random_dictionary_has_unit_atoms_spread_over_the_sphere():
  atoms = coding.random_dictionary(jax.random.key(0), (3, 4000))
  np.testing.assert_allclose(jnp.linalg.norm(atoms, axis=0), 1, rtol=1e-5)
  np.testing.assert_allclose(atoms.mean(axis=1), 0, atol=0.04)
  np.testing.assert_allclose(atoms @ atoms.T / 4000, np.eye(3) / 3, atol=0.03)


def test_pick_signals_takes_different_signals():
  signals = jax.random.normal(jax.random.key(0), (50, D))
  picked = coding.pick_signals(jax.random.key(1), signals, 40)
  distance = jnp.linalg.norm(picked[:, None] - signals[None], axis=2)
  nearest = distance.argmin(axis=1)
  assert len(set(nearest.tolist())) == 40
  assert distance.min(axis=1).max() < 0.1


def test_pick_signals_tells_copies_apart_where_there_are_too_few():
  picked = coding.pick_signals(jax.random.key(0), jnp.ones((3, D)), 10)
  assert len(np.unique(picked, axis=0)) == 10


def dense_float64(code):
  rows = np.zeros((N, K))
  np.put_along_axis(
    rows, np.asarray(code.atoms), np.asarray(code.coefficients, float), axis=1
  )
  return rows


def reference_update(atoms, a, b):
  """One pass of Mairal et al. 2009, algorithm 2, in float64."""
  atoms = np.array(atoms, float)
  for j in range(K):
    if a[j, j] > 1e-6 * np.mean(np.diagonal(a)):
      u = (b[:, j] - atoms @ a[:, j]) / a[j, j] + atoms[:, j]
      atoms[:, j] = u / np.linalg.norm(u)
  return atoms


def test_online_update_agrees_with_a_float64_reference():
  signals, atoms, code = problem()
  statistics = coding.init_statistics(D, K)
  expected, a, b = np.array(atoms, float), np.zeros((K, K)), np.zeros((D, K))
  for _ in range(3):
    statistics = coding.update_statistics(statistics, signals, code, 0.9)
    atoms = coding.update_dictionary(atoms, statistics)
    gamma = dense_float64(code)
    a = 0.9 * a + gamma.T @ gamma / N
    b = 0.9 * b + signals.T.astype(float) @ gamma / N
    expected = reference_update(expected, a, b)
    np.testing.assert_allclose(statistics.codes, a, atol=2e-6)
    np.testing.assert_allclose(statistics.products, b, atol=2e-6)
    np.testing.assert_allclose(atoms, expected, atol=2e-5)
    code = coding.batch_omp(signals, atoms, S)


def test_online_update_lowers_the_error_of_fixed_codes():
  signals, atoms, code = problem(1)

  def error(dictionary):
    return float(
      jnp.mean((signals - coding.reconstruct(code, dictionary)) ** 2)
    )

  statistics = coding.update_statistics(
    coding.init_statistics(D, K), signals, code, 1.0
  )
  # One atom alone, its code refitted by scale: the step must help overall.
  assert error(coding.update_dictionary(atoms, statistics)) < error(atoms)


def test_unused_atoms_stay_and_all_stay_on_the_sphere():
  signals, atoms, _ = problem(2)
  chosen = np.tile(np.arange(S, dtype=np.int32), (N, 1))
  code = SparseCode(jnp.asarray(chosen), jnp.ones((N, S)))
  statistics = coding.update_statistics(
    coding.init_statistics(D, K), signals, code, 1.0
  )
  moved = coding.update_dictionary(atoms, statistics)
  np.testing.assert_array_equal(moved[:, S:], atoms[:, S:])
  assert not np.allclose(moved[:, :S], atoms[:, :S])
  np.testing.assert_allclose(jnp.linalg.norm(moved, axis=0), 1, rtol=1e-5)


def test_online_learning_finds_a_hidden_dictionary():
  d, k = 16, 24
  rng = np.random.default_rng(3)
  truth = np.asarray(coding.random_dictionary(jax.random.key(7), (d, k)))

  def draw():
    rows = np.zeros((600, k), np.float32)
    for row in rows:
      chosen = rng.choice(k, 2, replace=False)
      row[chosen] = rng.uniform(0.5, 1.5, 2) * rng.choice([-1, 1], 2)
    return rows @ truth.T

  @jax.jit
  def learn(atoms, statistics, signals):
    code = coding.batch_omp(signals, atoms, 2)
    statistics = coding.update_statistics(statistics, signals, code, 0.9)
    return coding.update_dictionary(atoms, statistics), statistics

  atoms = coding.random_dictionary(jax.random.key(0), (d, k))
  statistics = coding.init_statistics(d, k)
  for _ in range(60):
    atoms, statistics = learn(atoms, statistics, draw())
  found = np.abs(truth.T @ np.asarray(atoms)).max(axis=1)
  assert (found > 0.98).mean() >= 0.7, np.sort(found)


def test_statistics_of_no_past_forget_it():
  signals, _, code = problem(4)
  old = OnlineStatistics(jnp.ones((K, K)), jnp.ones((D, K)))
  fresh = coding.update_statistics(
    coding.init_statistics(D, K), signals, code, 0.5
  )
  new = coding.update_statistics(old, signals, code, 0.0)
  np.testing.assert_array_equal(new.codes, fresh.codes)
