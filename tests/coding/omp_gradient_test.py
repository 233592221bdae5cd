"""Gradients are those of the least-squares refit with the support held."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding import (
  SparseCode,
  batch_omp,
  batch_omp_path,
  reconstruct,
  with_fit_gradient,
)
from tests.coding import omp_reference as reference

N, D, K, S = 12, 8, 20, 3
MODES = {
  'omp': {},
  'ols': {'selection': 'ols'},
  'positive': {'positive': True},
  'fast': {'precision': 'bfloat16'},
  'residual_norm': {'residual_norm': 1.5},
  'limit': {'limit': np.arange(N) % (S + 1)},
}


@pytest.fixture(scope='module')
def problem():
  return reference.random_problem(0, N, D, K)


@pytest.fixture(scope='module')
def weights():
  return np.random.default_rng(1).standard_normal((N, S)).astype(np.float32)


def gradients(signals, atoms, weights, **options):
  """Of sum(weights * coefficients), by signals and by atoms."""

  def loss(signals, atoms):
    code = batch_omp(signals, atoms, weights.shape[1], **options)
    return jnp.sum(weights * code.coefficients)

  return jax.grad(loss, (0, 1))(jnp.asarray(signals), jnp.asarray(atoms))


def expected_gradients(signals, atoms, weights, **options):
  """The same, by differences in float64 over the atoms that are in use."""
  code = batch_omp(signals, atoms, weights.shape[1], **options)
  used = np.asarray(code.coefficients) != 0
  # The atoms in use come first.
  order = np.argsort(~used, axis=1, kind='stable')
  return reference.refit_gradients(
    signals,
    atoms,
    np.take_along_axis(np.asarray(code.atoms), order, axis=1),
    used.sum(axis=1),
    np.take_along_axis(weights, order, axis=1),
  )


def assert_close(found, expected, rtol=1e-4):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize('mode', MODES)
def test_gradients_agree_with_finite_differences(problem, weights, mode):
  found = gradients(*problem, weights, **MODES[mode])
  expected = expected_gradients(*problem, weights, **MODES[mode])
  assert all(np.abs(x).max() > 0.1 for x in expected)
  assert_close(found, expected)


def test_gradients_of_the_residual_form(weights):
  signals, atoms = reference.random_problem(2, N, D, 528)
  found = gradients(signals, atoms, weights[:, :2])
  assert_close(found, expected_gradients(signals, atoms, weights[:, :2]))


def test_gradients_of_a_loss_agree_with_autodiff_of_a_solve(problem):
  signals, atoms = problem
  chosen = np.asarray(batch_omp(signals, atoms, S).atoms)

  def loss(signals, atoms, coefficients):
    used = jnp.moveaxis(atoms[:, chosen], 1, 0)  # [N, D, S]
    decoded = jnp.einsum('nds,ns->nd', used, coefficients)
    return jnp.sum((signals - decoded) ** 4) + jnp.sum(jnp.sin(decoded))

  def coded(signals, atoms):
    return loss(signals, atoms, batch_omp(signals, atoms, S).coefficients)

  def solved(signals, atoms):
    used = jnp.moveaxis(atoms[:, chosen], 1, 0)
    products = jnp.einsum('nds,ndt->nst', used, used)
    targets = jnp.einsum('nds,nd->ns', used, signals)
    fits = jnp.linalg.solve(products, targets[:, :, None])[:, :, 0]
    return loss(signals, atoms, fits)

  found = jax.grad(coded, (0, 1))(signals, atoms)
  with jax.enable_x64(True):
    expected = jax.grad(solved, (0, 1))(
      jnp.asarray(signals, jnp.float64), jnp.asarray(atoms, jnp.float64)
    )
    expected = jax.tree.map(np.asarray, expected)
  assert_close(found, expected)


def test_the_gradient_of_a_reconstruction_is_a_projection(problem):
  signals, atoms = problem
  pull = np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)

  def loss(signals):
    return jnp.sum(pull * reconstruct(batch_omp(signals, atoms, S), atoms))

  found = jax.jit(jax.grad(loss))(signals)
  for i, chosen in enumerate(np.asarray(batch_omp(signals, atoms, S).atoms)):
    basis = np.linalg.qr(atoms[:, chosen])[0]
    np.testing.assert_allclose(found[i], basis @ basis.T @ pull[i], atol=1e-5)


def test_pursuits_that_stop_by_themselves(weights):
  _, atoms = reference.random_problem(4, N, D, K)
  signals = np.random.default_rng(5).uniform(1, 2, (N, 1)) * atoms[:, :N].T
  signals = signals.astype(np.float32)
  signals[:3] = 0
  code = batch_omp(signals, atoms, S)
  assert ((np.asarray(code.coefficients) != 0).sum(axis=1) < S).all()
  found = gradients(signals, atoms, weights)
  assert_close(found, expected_gradients(signals, atoms, weights))
  assert not np.asarray(found[0])[:3].any()


def test_masked_and_broken_signals_have_no_gradient(problem, weights):
  signals, atoms = problem
  none = [2, 5, 6]
  limit, fewer = np.full(N, S), weights.copy()
  limit[2], fewer[none] = 0, 0
  expected = gradients(signals, atoms, fewer)
  broken = signals.copy()
  broken[5, 0], broken[6, 1] = np.nan, np.inf
  found = gradients(broken, atoms, weights, limit=limit)
  assert not np.asarray(found[0])[none].any()
  assert_close(found, expected, 1e-5)


def test_broken_and_dependent_atoms_have_finite_gradients(problem, weights):
  signals, atoms = problem
  broken = atoms.copy()
  broken[:, 0], broken[2, 1] = 0, np.nan
  broken[:, 10:] = broken[:, :10]
  by_signals, by_atoms = gradients(signals, broken, weights)
  assert np.isfinite(by_signals).all()
  assert np.isfinite(by_atoms).all()
  assert not np.asarray(by_atoms)[:, [0, 1, 10, 11]].any()


@pytest.mark.parametrize('power', [-60, 60])
def test_gradients_hold_at_every_scale(problem, weights, power):
  by_signals, by_atoms = gradients(*problem, weights)
  signals, atoms = problem
  found = gradients(np.ldexp(signals, power), atoms, weights)
  # Coefficients are linear in the signal.
  assert_close(found, (by_signals, np.ldexp(np.asarray(by_atoms), power)), 1e-5)


def test_gradients_inside_jit_are_the_same(problem, weights):
  inside = jax.jit(lambda x, y: gradients(x, y, weights))(*problem)
  assert_close(inside, gradients(*problem, weights), 1e-5)


def test_a_given_gram_matrix_does_not_change_the_gradients(problem, weights):
  signals, atoms = problem
  found = gradients(signals, atoms, weights, gram=atoms.T @ atoms)
  assert_close(found, gradients(signals, atoms, weights), 1e-5)


def test_integer_signals_have_gradients_by_the_atoms(problem, weights):
  signals, atoms = np.round(3 * problem[0]).astype(np.int32), problem[1]

  def loss(atoms):
    return jnp.sum(weights * batch_omp(signals, atoms, S).coefficients)

  _, expected = gradients(signals.astype(np.float32), atoms, weights)
  assert_close([jax.grad(loss)(atoms)], [expected], 1e-6)


def test_gradients_have_the_type_of_what_came_in(problem, weights):
  half = [jnp.asarray(x, jnp.bfloat16) for x in problem]
  found = gradients(*half, weights)
  assert [x.dtype for x in found] == [jnp.bfloat16] * 2
  wide = gradients(*(x.astype(jnp.float32) for x in half), weights)
  assert_close([x.astype(jnp.float32) for x in found], wide, 1e-2)


def test_the_end_of_a_path_is_given_the_same_gradient(problem, weights):
  def loss(signals, atoms):
    chosen, path = batch_omp_path(
      *map(jax.lax.stop_gradient, (signals, atoms)), S
    )
    code = SparseCode(chosen, path[:, -1])
    code = with_fit_gradient(code, signals, atoms)
    return jnp.sum(weights * code.coefficients)

  found = jax.grad(loss, (0, 1))(*map(jnp.asarray, problem))
  assert_close(found, gradients(*problem, weights), 1e-6)


def test_stop_gradient_stops(problem, weights):
  def loss(signals, atoms):
    code = batch_omp(*map(jax.lax.stop_gradient, (signals, atoms)), S)
    return jnp.sum(weights * code.coefficients)

  for found in jax.grad(loss, (0, 1))(*problem):
    assert not np.asarray(found).any()
