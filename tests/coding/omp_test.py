import functools

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import orthogonal_mp_gram

from lasers_jax import coding
from lasers_jax.coding import SparseCode, batch_omp, reconstruct
from tests.coding.omp_reference import random_problem

N, D, K, S = 300, 16, 48, 4


def dense(code, k):
  """Coefficients as rows [N, K]."""
  rows = np.zeros((len(code.atoms), k), np.float32)
  np.put_along_axis(
    rows, np.asarray(code.atoms), np.asarray(code.coefficients), axis=1
  )
  return rows


def assert_valid(code, n, k, s):
  atoms, coefficients = map(np.asarray, code)
  assert atoms.shape == coefficients.shape == (n, s)
  assert atoms.dtype == np.int32
  assert coefficients.dtype == np.float32
  assert np.isfinite(coefficients).all()
  assert atoms.min() >= 0
  assert atoms.max() < k
  assert (np.diff(np.sort(atoms, axis=1), axis=1) > 0).all(), 'atoms repeat'


@pytest.fixture(scope='module')
def coded():
  signals, atoms = random_problem(0, N, D, K)
  return signals, atoms, batch_omp(signals, atoms, S)


def test_is_valid(coded):
  assert_valid(coded[2], N, K, S)


def test_residual_is_orthogonal_to_the_chosen_atoms(coded):
  signals, atoms, code = coded
  residuals = signals - np.asarray(reconstruct(code, atoms))
  products = np.einsum('nd,dns->ns', residuals, atoms[:, code.atoms])
  assert np.abs(products).max() < 1e-5


def test_residual_does_not_grow_with_s(coded):
  signals, atoms, _ = coded
  _, path = coding.batch_omp_path(signals, atoms, S)
  chosen = coded[2].atoms
  norms = [
    np.linalg.norm(signals - reconstruct(SparseCode(chosen, c), atoms), axis=1)
    for c in np.moveaxis(np.asarray(path), 1, 0)
  ]
  assert (np.diff(norms, axis=0) < 1e-6).all()
  assert (np.asarray(norms[-1]) < 0.9 * np.asarray(norms[0])).mean() > 0.9


def test_path_holds_the_codes_of_every_smaller_s(coded):
  signals, atoms, code = coded
  chosen, path = coding.batch_omp_path(signals, atoms, S)
  smaller = batch_omp(signals, atoms, 2)
  np.testing.assert_array_equal(smaller.atoms, chosen[:, :2])
  np.testing.assert_allclose(smaller.coefficients, path[:, 1, :2], atol=1e-6)
  assert not np.asarray(path[:, 1, 2:]).any()
  np.testing.assert_array_equal(path[:, -1], code.coefficients)


def test_s_1_picks_the_largest_correlation():
  signals, atoms = random_problem(1, N, D, K)
  code = batch_omp(signals, atoms, 1)
  products = signals @ atoms
  best = np.abs(products).argmax(axis=1)
  np.testing.assert_array_equal(code.atoms[:, 0], best)
  np.testing.assert_allclose(
    code.coefficients[:, 0], products[np.arange(N), best], rtol=1e-5
  )


def test_recovers_sparse_signals_of_an_incoherent_dictionary():
  # Identity and Hadamard: coherence 1/8, so S < (1 + 8) / 2 is always found
  # (Tropp 2004, theorem A).
  h = np.array([[1.0]])
  for _ in range(6):
    h = np.block([[h, h], [h, -h]])
  atoms = np.concatenate([np.eye(64), h / 8], axis=1).astype(np.float32)
  rng = np.random.default_rng(2)
  truth = np.zeros((200, 128), np.float32)
  for row in truth:
    chosen = rng.choice(128, 4, replace=False)
    row[chosen] = rng.uniform(0.5, 2, 4) * rng.choice([-1, 1], 4)
  code = batch_omp(truth @ atoms.T, atoms, 4)
  np.testing.assert_allclose(dense(code, 128), truth, atol=1e-5)


def test_identity_dictionary_is_exact_and_ties_go_to_the_lowest_index():
  code = batch_omp(np.ones((3, 8), np.float32), np.eye(8, dtype=np.float32), 3)
  np.testing.assert_array_equal(code.atoms, [[0, 1, 2]] * 3)
  np.testing.assert_array_equal(code.coefficients, np.ones((3, 3)))


@pytest.mark.parametrize('d, k, s', [(D, K, S), (64, 512, 4), (8, 37, 8)])
def test_agrees_with_scikit_learn(d, k, s):
  signals, atoms = random_problem(3, N, d, k)
  wide = atoms.astype(np.float64)
  reference = orthogonal_mp_gram(
    wide.T @ wide, wide.T @ signals.T.astype(np.float64), n_nonzero_coefs=s
  ).T
  found = dense(batch_omp(signals, atoms, s), k)
  np.testing.assert_array_equal(found != 0, reference != 0)
  np.testing.assert_allclose(found, reference, atol=2e-5)


def test_codes_depend_on_the_signal_alone_bit_for_bit(as_in_use):
  signals, atoms = random_problem(0, N, D, K)
  coder = as_in_use(functools.partial(batch_omp, sparsity=S))
  code = coder(signals, atoms)

  def assert_same(part, rows):
    np.testing.assert_array_equal(part.atoms, code.atoms[rows])
    np.testing.assert_array_equal(part.coefficients, code.coefficients[rows])

  order = np.random.default_rng(4).permutation(N)
  assert_same(coder(signals[order], atoms), order)
  for i in range(0, N, 30):
    assert_same(coder(signals[i : i + 1], atoms), np.array([i]))
  many = np.concatenate([signals] * 12)  # more than one block
  assert_same(coder(many, atoms), np.tile(np.arange(N), 12))


def nasty_problems():
  signals, atoms = random_problem(5, N, D, K)
  twins = atoms.copy()
  twins[:, K // 2 :] = twins[:, : K // 2]
  flipped = atoms.copy()
  flipped[:, K // 2 :] = -flipped[:, : K // 2]
  close = twins + 1e-4 * atoms[:, ::-1]
  close /= np.linalg.norm(close, axis=0)
  holes = atoms.copy()
  holes[:, ::7] = 0
  sparse = np.resize((atoms[:, :24] + 0.5 * atoms[:, 24:]).T, (N, D))
  some_zero = signals.copy()
  some_zero[::3] = 0
  short, few = random_problem(6, N, 3, 6)
  return {
    'zero signals': (some_zero, atoms, S),
    'equal atoms': (signals, twins, S),
    'atoms of flipped sign': (signals, flipped, S),
    'nearly equal atoms': (signals, close, S),
    'zero atoms': (signals, holes, S),
    'all atoms zero': (signals, np.zeros_like(atoms), S),
    'S = D': (short, few, 3),
    'S = K > D': (short, few, 6),
    'signals of two atoms': (sparse, atoms, S),
    'tiny': (signals * 1e-30, atoms, S),
    'huge': (signals * 1e30, atoms, S),
    'one signal, one atom': (signals[:1], atoms[:, :1], 1),
  }


@pytest.mark.parametrize('name', nasty_problems())
def test_nasty_inputs_give_finite_and_distinct_codes(name):
  signals, atoms, s = nasty_problems()[name]
  code = batch_omp(signals, atoms, s)
  assert_valid(code, len(signals), atoms.shape[1], s)
  residuals = signals - np.asarray(reconstruct(code, atoms))
  norms = np.linalg.norm(signals.astype(np.float64), axis=1)
  lost = np.linalg.norm(residuals.astype(np.float64), axis=1)
  assert (lost <= norms * (1 + 1e-5)).all()
  if s >= signals.shape[1]:
    assert (lost < 1e-4 * norms).all(), 'D atoms explain everything'


def test_zero_signals_have_zero_codes():
  _, atoms = random_problem(0, N, D, K)
  code = batch_omp(np.zeros((N, D), np.float32), atoms, S)
  np.testing.assert_array_equal(code.atoms, [range(S)] * N)
  assert not np.asarray(code.coefficients).any()


def test_signals_of_nan_or_inf_are_coded_as_zero_and_leave_others_alone(coded):
  signals, atoms, code = coded
  broken = signals.copy()
  broken[3, 2], broken[7, 0] = np.nan, np.inf
  found = batch_omp(broken, atoms, S)
  assert_valid(found, N, K, S)
  assert not np.asarray(found.coefficients)[[3, 7]].any()
  rest = np.setdiff1d(np.arange(N), [3, 7])
  np.testing.assert_array_equal(found.atoms[rest], code.atoms[rest])


@pytest.mark.parametrize('power', [-60, -3, 7, 60])
def test_scaling_by_a_power_of_two_scales_the_code_exactly(coded, power):
  signals, atoms, code = coded
  scaled = batch_omp(np.ldexp(signals, power), atoms, S)
  np.testing.assert_array_equal(scaled.atoms, code.atoms)
  np.testing.assert_array_equal(
    scaled.coefficients, np.ldexp(np.asarray(code.coefficients), power)
  )


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64', 'int8'])
def test_signals_of_any_type_are_coded_in_float32(coded, dtype, as_in_use):
  coder = as_in_use(functools.partial(batch_omp, sparsity=S))
  signals = np.round(4 * coded[0])  # small integers, which all types hold
  typed = np.asarray(signals, jnp.dtype(dtype))
  code = coder(typed, coded[1])
  assert code.coefficients.dtype == np.float32
  expected = coder(signals, coded[1])
  np.testing.assert_array_equal(code.atoms, expected.atoms)
  np.testing.assert_array_equal(code.coefficients, expected.coefficients)


def test_integer_dictionaries_are_taken(coded):
  atoms = np.tile(np.eye(D, dtype=np.int32), (1, K // D))
  code = batch_omp(coded[0], atoms, S)
  expected = batch_omp(coded[0], np.float32(atoms), S)
  np.testing.assert_array_equal(code.atoms, expected.atoms)
