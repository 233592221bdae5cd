"""Pursuits where float32 is short: parallel atoms, other units, other types."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import orthogonal_mp

from lasers_jax.coding import batch_omp, rounded_pursuit
from tests.coding import omp_reference as reference

D, K = 16, 64


def left(signals, atoms, code):
  """Norms of what a code leaves, in float64."""
  rows = np.float64(atoms.T)[np.asarray(code.atoms)]
  fit = np.einsum('ns,nsd->nd', np.float64(code.coefficients), rows)
  return np.linalg.norm(signals - fit, axis=1)


def by_scikit_learn(signals, atoms, s, dtype):
  codes = orthogonal_mp(
    atoms.astype(dtype), signals.T.astype(dtype), n_nonzero_coefs=s
  )
  codes = np.float64(codes.reshape(atoms.shape[1], -1))
  return np.linalg.norm(signals - (np.float64(atoms) @ codes).T, axis=1)


def two_atoms(angle):
  """Two atoms at an angle, others across, and signals that need both."""
  atoms = np.eye(D, 8)
  atoms[:, 1] = atoms[:, 0]
  atoms[8, 1] = angle
  signals = np.zeros((4, D), np.float32)
  signals[:, 0], signals[:, 8] = 1, (0.5, -0.5, 0.1, 0.9)
  return signals, reference.unit(atoms)


FORMS = {
  'Gram': {},
  'given': {'gram': True},
  'residual_norm': {'residual_norm': 1e-6},
  'ols': {'selection': 'ols'},
}


# What OLS compares are differences of squares: these end at a sine of 1e-3.
@pytest.mark.parametrize(
  'form, angle',
  [
    *((x, y) for x in FORMS if x != 'ols' for y in (1e-2, 2e-3, 1e-3, 5e-4)),
    ('ols', 1e-2),
    ('ols', 2e-3),
  ],
)
def test_two_nearly_parallel_atoms_leave_nothing(form, angle):
  signals, atoms = two_atoms(angle)
  options = dict(FORMS[form])
  if 'gram' in options:
    options['gram'] = atoms.T @ atoms
  code = batch_omp(signals, atoms, 2, **options)
  assert left(signals, atoms, code).max() < 1e-3


@pytest.mark.filterwarnings('ignore:.*linear dependence:RuntimeWarning')
@pytest.mark.parametrize('spread, s', [(0.03, 8), (0.003, 8), (0.003, 12)])
def test_atoms_about_one_are_fitted_as_in_float64(spread, s):
  rng = np.random.default_rng(5)
  signals = rng.standard_normal((100, D)).astype(np.float32)
  common = rng.standard_normal((D, 1))
  atoms = reference.unit(common + spread * rng.standard_normal((D, K)))
  found = left(signals, atoms, batch_omp(signals, atoms, s)).mean()
  narrow, wide = (
    by_scikit_learn(signals, atoms, s, x).mean() for x in ('f4', 'f8')
  )
  assert found < 1.1 * narrow
  assert found < 1.02 * wide


def test_gradients_of_nearly_parallel_atoms_are_those_of_float64():
  signals, atoms = two_atoms(1e-2)
  weights = np.random.default_rng(6).standard_normal((4, 2))

  def loss(signals, atoms):
    return (weights.astype('f4') * batch_omp(signals, atoms, 2)[1]).sum()

  found = jax.grad(loss, (0, 1))(signals, atoms)
  code = batch_omp(signals, atoms, 2)
  expected = reference.refit_gradients(
    signals, atoms, np.asarray(code.atoms), np.full(4, 2), weights
  )
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-3 * np.abs(b).max())


@pytest.mark.parametrize('angle', [3e-4, 1e-4, 1e-6, 0.0])
def test_gradients_of_all_but_equal_atoms_are_finite(angle):
  signals, atoms = two_atoms(angle)
  loss = lambda *x: (batch_omp(*x, 2).coefficients ** 2).sum()  # noqa: E731
  for x in jax.grad(loss, (0, 1))(signals, atoms):
    assert np.isfinite(x).all()


@pytest.mark.parametrize('size', [1e-30, 1e-8, 1e-4, 1e-3, 1e4, 1e15])
@pytest.mark.parametrize('mode', ['omp', 'ols', 'positive'])
def test_atoms_of_any_size_are_chosen_alike(mode, size):
  options = {'omp': {}, 'ols': {'selection': 'ols'}}.get(
    mode, {'positive': True}
  )
  signals, atoms = reference.random_problem(0, 60, D, 48)
  expected = batch_omp(signals, atoms, 3, **options)
  code = batch_omp(signals, np.float32(size) * atoms, 3, **options)
  np.testing.assert_array_equal(code.atoms, expected.atoms)
  found = np.float64(code.coefficients) * np.float32(size)
  np.testing.assert_allclose(found, expected.coefficients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('mode', ['omp', 'ols', 'positive'])
def test_atoms_of_mixed_sizes_are_fitted_as_in_float64(mode):
  options = {'omp': {}, 'ols': {'selection': 'ols'}}.get(
    mode, {'positive': True}
  )
  signals, atoms = reference.random_problem(1, 60, D, 48)
  atoms *= np.float32(10) ** np.random.default_rng(2).uniform(-4, 4, 48)
  atoms = atoms.astype(np.float32)
  code = batch_omp(signals, atoms, 3, **options)
  for i, signal in enumerate(signals):
    chosen = np.float64(atoms[:, np.asarray(code.atoms[i])])
    size = np.linalg.norm(chosen, axis=0)
    fit = reference.refit(np.float64(signal), chosen / size, mode == 'positive')
    found = np.float64(code.coefficients[i]) * size
    np.testing.assert_allclose(found, fit, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('size', [1e-30, 1e37, 3e38])
def test_signals_at_the_ends_of_float32_have_finite_codes(size):
  signals, atoms = reference.random_problem(3, 60, D, 48)
  signals /= np.abs(signals).max()
  code = batch_omp(np.float32(size) * signals, atoms, 3)
  assert np.isfinite(code.coefficients).all()
  expected = batch_omp(signals, atoms, 3)
  np.testing.assert_array_equal(code.atoms, expected.atoms)
  largest = float(np.finfo(np.float32).max)
  exact = np.clip(size * np.float64(expected.coefficients), -largest, largest)
  np.testing.assert_allclose(code.coefficients, exact, rtol=1e-5)


@pytest.mark.parametrize('size', [1e-30, 1e30, 3e38])
def test_rounded_codes_of_any_signal_are_finite_and_distinct(size):
  signals, atoms = reference.random_problem(4, 60, D, 48)
  signals *= np.float32(size / np.abs(signals).max())
  levels = np.float32([-1, 0, 1])
  code = rounded_pursuit(signals, atoms, np.ones(48, 'f4'), levels, 3)
  assert np.isfinite(code.coefficients).all()
  assert (np.diff(np.sort(code.atoms, axis=1), axis=1) > 0).all()


@pytest.mark.parametrize('which', ['signals', 'dictionary'])
def test_complex_numbers_are_refused(which):
  arrays = dict(zip(('signals', 'dictionary'), two_atoms(0.1), strict=True))
  arrays[which] = arrays[which] + 1j
  with pytest.raises(TypeError, match='must be real to be coded, got complex'):
    batch_omp(**arrays, sparsity=2)
