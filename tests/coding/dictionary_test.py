import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_codes_are_the_rows_of_what_atoms_are_the_columns():
  shape = 7, 5
  codes = coding.random_codes(jax.random.key(3), shape)
  atoms = coding.random_dictionary(jax.random.key(3), shape[::-1])
  np.testing.assert_array_equal(codes, atoms.T)
  stretched = jnp.arange(7.0)[:, None] * codes
  unit = coding.normalize_codes(stretched)
  np.testing.assert_allclose(unit[1:], codes[1:], rtol=1e-6)
  np.testing.assert_array_equal(unit[0], jnp.zeros(5))


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


def surrogate(atoms, a, b):
  """What learning lowers (Mairal et al. 2009, eq. 8), but for a constant."""
  atoms, a, b = (np.asarray(x, float) for x in (atoms, a, b))
  return np.trace(atoms.T @ atoms @ a) / 2 - np.trace(atoms.T @ b)


@pytest.fixture(scope='module')
def passes():
  """The statistics of one batch, and dictionaries pass after pass."""
  signals, start, code = problem()
  statistics = coding.update_statistics(
    coding.init_statistics(D, K), signals, code, 1.0
  )

  def run(block):
    atoms = [start]
    for _ in range(6):
      atoms.append(coding.update_dictionary(atoms[-1], statistics, block))
    return atoms

  # 6 does not divide K, 32 is more than K.
  return statistics, {block: run(block) for block in (1, 6, 32)}


def test_sequential_passes_are_those_of_mairal(passes):
  statistics, atoms = passes
  a, b = (np.asarray(x, float) for x in statistics)
  expected = atoms[1][0]
  for mine in atoms[1][1:]:
    expected = reference_update(expected, a, b)
    np.testing.assert_allclose(mine, expected, atol=2e-5)


@pytest.mark.parametrize('block', [1, 6, 32])
def test_no_pass_raises_the_surrogate(passes, block):
  statistics, atoms = passes
  values = [surrogate(x, *statistics) for x in atoms[block]]
  assert np.all(np.diff(values) < 0), values
  for x in atoms[block]:
    np.testing.assert_allclose(jnp.linalg.norm(x, axis=0), 1, rtol=1e-5)


def test_blocks_lead_where_single_atoms_do(passes):
  statistics, atoms = passes
  start, *ends = (surrogate(x[-1], *statistics) for x in atoms.values())
  fall = surrogate(atoms[1][0], *statistics) - start
  for end in ends:
    assert end - start < 0.1 * fall


def test_statistics_agree_with_dense_products_in_float64():
  statistics = coding.init_statistics(D, K)
  a, b = np.zeros((K, K)), np.zeros((D, K))
  for seed in range(3):
    signals, _, code = problem(seed)
    statistics = coding.update_statistics(statistics, signals, code, 0.9)
    gamma = dense_float64(code)
    a = 0.9 * a + gamma.T @ gamma / N
    b = 0.9 * b + signals.T.astype(float) @ gamma / N
  np.testing.assert_allclose(statistics.codes, a, atol=2e-6)
  np.testing.assert_allclose(statistics.products, b, atol=2e-6)


@pytest.mark.parametrize('exponent', [-50, 60])
def test_the_scale_of_signals_changes_nothing(passes, exponent):
  """Powers of two, so that not even the last bit differs."""
  signals, start, code = problem()
  scaled = SparseCode(code.atoms, jnp.ldexp(code.coefficients, exponent))
  statistics = coding.update_statistics(
    coding.init_statistics(D, K), np.ldexp(signals, exponent), scaled, 1.0
  )
  moved = coding.update_dictionary(start, statistics, 6)
  np.testing.assert_array_equal(moved, passes[1][6][1])


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


def test_statistics_of_nothing_move_nothing():
  _, atoms, _ = problem()
  moved = coding.update_dictionary(atoms, coding.init_statistics(D, K))
  np.testing.assert_array_equal(moved, atoms)


def test_forgotten_atoms_have_no_past():
  signals, _, code = problem(3)
  old = coding.update_statistics(
    coding.init_statistics(D, K), signals, code, 1.0
  )
  which = np.isin(np.arange(K), [2, 7])
  new = coding.forget_atoms(old, which)
  assert not new.codes[which].any()
  assert not new.codes[:, which].any()
  assert not new.products[:, which].any()
  kept = np.ix_(~which, ~which)
  np.testing.assert_array_equal(new.codes[kept], old.codes[kept])
  np.testing.assert_array_equal(
    new.products[:, ~which], old.products[:, ~which]
  )


def test_statistics_of_no_past_forget_it():
  signals, _, code = problem(4)
  old = OnlineStatistics(jnp.ones((K, K)), jnp.ones((D, K)))
  fresh = coding.update_statistics(
    coding.init_statistics(D, K), signals, code, 0.5
  )
  new = coding.update_statistics(old, signals, code, 0.0)
  jax.tree.map(np.testing.assert_array_equal, new, fresh)
