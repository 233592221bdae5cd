import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import orthogonal_mp_gram

from lasers_jax.coding import batch_omp, batch_omp_path, reconstruct
from tests.coding import omp_reference as reference

pytestmark = pytest.mark.slow

# One shape (N, D, K, S) of each form of the correlations on a CPU: by the Gram
# matrix, whose rows have a line more where they fill pages, and by residuals
# where K is large. They are few: compiling takes time.
FORMS = {
  'Gram': (60, 16, 48, 3),
  'pages': (60, 16, 1024, 3),
  'residual': (60, 16, 528, 2),
}
N, D, K, S = FORMS['Gram']
MODES = {
  'omp': {},
  'ols': {'selection': 'ols'},
  'positive': {'positive': True},
  'fast': {'precision': 'bfloat16'},
}
EXACT = ('omp', 'ols', 'positive')


@pytest.fixture(scope='module')
def problem():
  return reference.random_problem(0, N, D, K)


def slots(atoms, count):
  """Atoms [N, S] with -1 in the slots that a stopped pursuit left."""
  used = np.arange(atoms.shape[1]) < np.asarray(count)[:, None]
  return np.where(used, atoms, -1)


def assert_same(found, expected, rows=slice(None)):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, np.asarray(b)[rows])


def assert_close(code, expected):
  np.testing.assert_array_equal(code.atoms, expected.atoms)
  np.testing.assert_allclose(
    code.coefficients, expected.coefficients, atol=2e-5
  )


# Agreement with the plain pursuits.


@pytest.mark.parametrize('mode', EXACT)
@pytest.mark.parametrize('form', FORMS)
def test_agrees_with_the_plain_pursuit(form, mode):
  n, d, k, s = FORMS[form]
  signals, atoms = reference.random_problem(1, n, d, k)
  expected = reference.pursue(signals, atoms, s, **MODES[mode])
  assert (expected.count == s).all()
  assert_close(batch_omp(signals, atoms, s, **MODES[mode]), expected)


@pytest.mark.parametrize('mode', ['omp', 'ols'])
def test_path_holds_the_codes_of_every_smaller_s(problem, mode):
  chosen, path = batch_omp_path(*problem, S, **MODES[mode])
  code = batch_omp(*problem, S, **MODES[mode])
  np.testing.assert_array_equal(chosen, code.atoms)
  np.testing.assert_allclose(path[:, -1], code.coefficients, atol=1e-5)
  smaller = reference.pursue(*problem, 2, **MODES[mode])
  np.testing.assert_allclose(path[:, 1, :2], smaller.coefficients, atol=1e-5)
  assert not np.asarray(path[:, 1, 2:]).any()


# Selection.


def test_the_second_atom_of_ols_leaves_the_smaller_error(problem):
  # Both choose the same first atom; OLS then takes the best of all pairs with
  # it, whatever OMP takes.
  signals, atoms = problem
  left = []
  for selection in ('omp', 'ols'):
    chosen, path = batch_omp_path(signals, atoms, S, selection=selection)
    rows = np.asarray(path)[:, 1, :2, None] * atoms.T[chosen[:, :2]]
    left.append(np.linalg.norm(signals - rows.sum(axis=1), axis=1))
  assert (left[1] <= left[0] + 1e-6).all()
  assert (left[1] < left[0] - 1e-3).any()


# Non-negative coefficients.


def test_positive_coefficients_solve_the_non_negative_problem(problem):
  signals, atoms = problem
  code = batch_omp(signals, atoms, S, positive=True)
  coefficients = np.asarray(code.coefficients)
  assert (coefficients >= 0).all()
  # The conditions of Karush, Kuhn and Tucker, on the support.
  residuals = signals - np.asarray(reconstruct(code, atoms))
  products = np.einsum('nd,dns->ns', residuals, atoms[:, code.atoms])
  assert np.abs(products[coefficients > 0]).max() < 1e-5
  assert products.max() < 1e-5


def test_positive_codes_let_go_of_atoms_that_no_longer_help():
  # Five spaces of three dimensions, each with two atoms 100 degrees apart and
  # one nearly between them, which comes first; once all three are there, the
  # best fit has less than nothing of it.
  c, s, t = np.cos(50 / 180 * np.pi), np.sin(50 / 180 * np.pi), 0.3
  triple = reference.unit([[1, c, c], [0, s, -s], [t, 0, 0]])
  atoms = np.zeros((D, K), np.float32)
  atoms[:15, :15] = np.kron(np.eye(5), triple)
  weights = np.random.default_rng(3).uniform(1, 1.5, (N, 3))
  weights[:, 0] *= -0.1
  signals = np.zeros((N, D), np.float32)
  for i, signal in enumerate(weights @ triple.T):
    signals[i, 3 * (i % 5) :][:3] = signal
  code = batch_omp(signals, atoms, S, positive=True)
  expected = reference.pursue(signals, atoms, S, positive=True)
  assert (expected.coefficients[:, 0] == 0).all(), 'a weak test'
  assert_close(code, expected)
  assert not np.asarray(code.coefficients)[:, 0].any()


def test_signals_opposite_to_all_atoms_have_positive_codes_of_zero(problem):
  code = batch_omp(
    -np.ones((N, D), np.float32), np.abs(problem[1]), S, positive=True
  )
  np.testing.assert_array_equal(code.atoms, [range(S)] * N)
  assert not np.asarray(code.coefficients).any()


# Early stops.


@pytest.mark.parametrize('mode', EXACT)
def test_a_residual_norm_stops_as_the_plain_pursuit_does(problem, mode):
  residual_norm = 0.8 * np.linalg.norm(problem[0], axis=1)
  residual_norm[::7], residual_norm[1::7] = 0, 1e3
  options = {**MODES[mode], 'residual_norm': residual_norm.astype(np.float32)}
  code = batch_omp(*problem, S, **options)
  expected = reference.pursue(*problem, S, **options)
  assert set(expected.count) == set(range(S + 1))
  np.testing.assert_array_equal(code.count, expected.count)
  assert code.count.dtype == np.int32
  np.testing.assert_array_equal(slots(code.atoms, code.count), expected.atoms)
  np.testing.assert_allclose(
    code.coefficients, expected.coefficients, atol=2e-5
  )


def test_a_residual_norm_stops_as_scikit_learn_does(problem):
  signals, atoms = problem
  residual_norm, wide = 2.5, atoms.astype(np.float64)
  squares = np.sum(signals.astype(np.float64) ** 2, axis=1)
  dense = orthogonal_mp_gram(
    wide.T @ wide,
    wide.T @ signals.T.astype(np.float64),
    tol=residual_norm**2,
    norms_squared=squares,
  ).T
  dense[squares <= residual_norm**2] = 0  # there it takes an atom all the same
  code = batch_omp(signals, atoms, 6, residual_norm=residual_norm)
  assert (np.asarray(code.count) < 6).all()
  np.testing.assert_array_equal(code.count, (dense != 0).sum(axis=1))
  found = np.zeros((N, K), np.float32)
  np.put_along_axis(
    found, np.asarray(code.atoms), np.asarray(code.coefficients), axis=1
  )
  np.testing.assert_allclose(found, dense, atol=2e-5)


def test_stopped_slots_are_zero_and_hold_the_lowest_unused_atoms(problem):
  code = batch_omp(*problem, S, residual_norm=np.full(N, 2.5, np.float32))
  assert len(set(np.asarray(code.count).tolist())) > 2
  for chosen, coefficients, count in zip(*map(np.asarray, code), strict=True):
    free = np.setdiff1d(np.arange(2 * S), chosen[:count])
    np.testing.assert_array_equal(chosen[count:], free[: S - count])
    assert not coefficients[count:].any()
    assert coefficients[:count].all()


def test_a_residual_norm_of_zero_stops_nothing(problem):
  code = batch_omp(*problem, S, residual_norm=np.zeros(N, np.float32))
  assert (np.asarray(code.count) == S).all()
  assert_close(code, batch_omp(*problem, S))


@pytest.mark.parametrize('mode', ['omp', 'positive'])
def test_a_limit_gives_each_signal_its_own_s(problem, mode):
  limit, options = np.arange(N) % (S + 1), MODES[mode]
  code = batch_omp(*problem, S, limit=limit, **options)
  full = batch_omp(*problem, S, **options)
  np.testing.assert_array_equal(
    slots(code.atoms, limit), slots(full.atoms, limit)
  )
  expected = reference.pursue(*problem, S, limit=limit, **options)
  np.testing.assert_allclose(
    code.coefficients, expected.coefficients, atol=2e-5
  )
  beyond = np.arange(S) >= limit[:, None]
  assert not np.asarray(code.coefficients)[beyond].any()


def test_a_limit_of_zero_masks_a_signal_out(problem):
  code = batch_omp(*problem, S, limit=np.zeros(N, np.int32))
  np.testing.assert_array_equal(code.atoms, [range(S)] * N)
  assert not np.asarray(code.coefficients).any()


def test_a_limit_and_a_residual_norm_stop_at_whichever_comes_first(problem):
  limit, residual_norm = np.arange(N) % (S + 1), np.full(N, 2.5, np.float32)
  code = batch_omp(*problem, S, limit=limit, residual_norm=residual_norm)
  alone = batch_omp(*problem, S, residual_norm=residual_norm)
  np.testing.assert_array_equal(code.count, np.minimum(alone.count, limit))
  assert (np.asarray(alone.count) < limit).any()


def test_limits_beyond_the_range_are_clipped(problem):
  limit = np.where(np.arange(N) % 2, 99, -3)
  code = batch_omp(*problem, S, limit=limit)
  assert_close(code, batch_omp(*problem, S, limit=np.clip(limit, 0, S)))


def test_a_pursuit_that_can_go_no_further_is_counted_to_there(problem):
  atoms = problem[1]
  signals = 2 * atoms.T - 3 * np.roll(atoms.T, 7, axis=0)
  signals = np.resize(signals, (N, D))
  signals[0], signals[1, 2] = 0, np.nan
  code = batch_omp(
    signals, atoms, S, residual_norm=np.full(N, 1e-4, np.float32)
  )
  assert (np.asarray(code.count)[:2] == 0).all()
  assert (np.asarray(code.count)[2:] >= 2).all()
  assert (np.asarray(code.count)[2:] < S).any()


# The Gram matrix.


@pytest.mark.parametrize(
  'form, mode',
  [('Gram', 'omp'), ('pages', 'omp'), ('residual', 'omp'), ('Gram', 'ols')],
)
def test_a_given_gram_matrix_changes_nothing(form, mode):
  n, d, k, s = FORMS[form]
  signals, atoms = reference.random_problem(6, n, d, k)
  gram = jnp.asarray(atoms).T @ jnp.asarray(atoms)
  code = batch_omp(signals, atoms, s, gram=gram, **MODES[mode])
  assert_close(code, batch_omp(signals, atoms, s, **MODES[mode]))


# What comes in, and who else is there.


@pytest.mark.parametrize('options', [{}, {'residual_norm': 0.1}, MODES['fast']])
def test_no_signals_have_no_codes(problem, options):
  signals = np.zeros((0, D), np.float32)
  code = batch_omp(signals, problem[1], S, **options)
  assert code.atoms.shape == code.coefficients.shape == (0, S)
  assert code.atoms.dtype == np.int32
  assert code.coefficients.dtype == np.float32
  if 'residual_norm' in options:
    assert code.count.shape == (0,)
    assert code.count.dtype == np.int32


@pytest.mark.parametrize('mode', [*MODES][1:])  # omp_test.py has the first
def test_codes_depend_on_the_signal_alone_bit_for_bit(problem, mode, as_in_use):
  signals, atoms = problem
  coder = as_in_use(functools.partial(batch_omp, sparsity=S, **MODES[mode]))
  code = coder(signals, atoms)
  order = np.random.default_rng(8).permutation(N)
  assert_same(coder(signals[order], atoms), code, order)
  half = np.arange(N)[:, None] < N // 2
  found = coder(np.where(half, signals, -1e3 * signals[::-1]), atoms)
  assert_same([x[: N // 2] for x in found], code, slice(N // 2))


@pytest.mark.parametrize('mode', ['ols', 'fast'])  # omp_test.py has the rest
def test_codes_do_not_depend_on_the_number_of_signals(problem, mode, as_in_use):
  signals, atoms = problem
  coder = as_in_use(functools.partial(batch_omp, sparsity=S, **MODES[mode]))
  assert_same(coder(signals[:7], atoms), coder(signals, atoms), slice(7))


@pytest.mark.parametrize('mode', MODES)
def test_broken_signals_are_coded_as_zero_and_leave_others_alone(problem, mode):
  signals, atoms = problem
  code = batch_omp(signals, atoms, S, **MODES[mode])
  broken = signals.copy()
  broken[3, 2], broken[7, 0], broken[9, 1] = np.nan, np.inf, -np.inf
  found = batch_omp(broken, atoms, S, **MODES[mode])
  rows = [3, 7, 9]
  np.testing.assert_array_equal(np.asarray(found.atoms)[rows], [range(S)] * 3)
  assert not np.asarray(found.coefficients)[rows].any()
  rest = np.setdiff1d(np.arange(N), rows)
  assert_same([x[rest] for x in found], code, rest)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('mode', MODES)
def test_broken_atoms_count_as_zero_and_are_never_chosen(problem, mode, value):
  signals, atoms = problem
  holes, broken = atoms.copy(), atoms.copy()
  holes[:, ::5], broken[3, ::5] = 0, value
  code = batch_omp(signals, broken, S, **MODES[mode])
  used = np.asarray(code.coefficients) != 0
  assert (np.asarray(code.atoms) % 5 != 0)[used].all()
  assert np.isfinite(code.coefficients).all()
  assert_same(code, batch_omp(signals, holes, S, **MODES[mode]))


@pytest.mark.parametrize('mode', MODES)
def test_ties_go_to_the_lowest_index(mode):
  # Three copies of an orthonormal basis.
  atoms = np.tile(np.eye(D, dtype=np.float32), (1, K // D))
  code = batch_omp(np.ones((N, D), np.float32), atoms, S, **MODES[mode])
  np.testing.assert_array_equal(code.atoms, [range(S)] * N)
  np.testing.assert_array_equal(code.coefficients, np.ones((N, S)))


def test_works_inside_jit(problem):
  @jax.jit
  def inside(signals, atoms, limit):
    return batch_omp(signals, atoms, S, limit=limit)

  limit = np.arange(N) % (S + 1)
  code = inside(*problem, limit)
  assert_close(code, batch_omp(*problem, S, limit=limit))


# Bad input.


@pytest.mark.parametrize(
  'signals, atoms, s, options, message',
  [
    ((4, 8), (8, 9), 0, {}, 'sparsity S must be from 1 to K = 9, got 0'),
    ((4, 8), (8, 9), 10, {}, 'sparsity S must be from 1 to K = 9, got 10'),
    (
      (4, 7),
      (8, 9),
      2,
      {},
      r'dictionary must be \[D, K\] with D = 7, got \[8, 9\]',
    ),
    ((2, 4, 8), (8, 9), 2, {}, r'signals must be \[N, D\]'),
    ((4, 8), (8,), 2, {}, r'dictionary must be \[D, K\] with D = 8, got \[8\]'),
    ((4, 8), (8, 9), 2, {'selection': 'best'}, 'best'),
    ((4, 8), (8, 9), 2, {'precision': 'float8'}, 'float8'),
    ((4, 8), (8, 9), 2, {'positive': True, 'selection': 'ols'}, 'positive'),
    ((4, 8), (8, 9), 2, {'precision': 'bfloat16', 'selection': 'ols'}, 'omp'),
    (
      (4, 8),
      (8, 9),
      2,
      {'gram': np.ones((8, 8))},
      r'gram must be \[K, K\] with K = 9, got \[8, 8\]',
    ),
    (
      (4, 8),
      (8, 9),
      2,
      {'limit': np.ones(5, np.int32)},
      r'limit must be \[N\] with N = 4',
    ),
    ((4, 8), (8, 9), 2, {'residual_norm': np.ones(5)}, 'residual_norm must be'),
  ],
)
def test_bad_input_is_refused(signals, atoms, s, options, message):
  with pytest.raises(ValueError, match=message):
    batch_omp(np.ones(signals), np.ones(atoms), s, **options)
