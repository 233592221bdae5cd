"""Products in bfloat16: near the exact pursuit, and by how much."""

import numpy as np
import pytest

from lasers_jax.coding import batch_omp, reconstruct
from tests.coding import omp_reference as reference

S = 3


def errors(signals, atoms, code):
  return np.linalg.norm(signals - np.asarray(reconstruct(code, atoms)), axis=1)


@pytest.fixture(scope='module')
def fast():
  """Exact codes, fast ones, and fast ones that are not rescored."""
  signals, atoms = reference.random_problem(7, 2000, 32, 256)
  codes = [
    batch_omp(signals, atoms, S, **options)
    for options in (
      {},
      {'precision': 'bfloat16'},
      {'precision': 'bfloat16', 'rescore': False},
    )
  ]
  return signals, atoms, codes


def support_share(code, expected):
  return np.mean(
    (np.sort(code.atoms, axis=1) == np.sort(expected.atoms, axis=1)).all(1)
  )


def test_fast_codes_have_nearly_all_supports_and_rescoring_more(fast):
  _, _, (exact, rescored, rough) = fast
  assert 0.9 < support_share(rough, exact) < 1
  assert support_share(rescored, exact) > support_share(rough, exact)
  assert support_share(rescored, exact) > 0.97


def test_fast_codes_lose_little(fast):
  signals, atoms, codes = fast
  exact, rescored, rough = (
    np.mean(errors(signals, atoms, code) ** 2) for code in codes
  )
  assert abs(rescored / exact - 1) < 0.003
  assert abs(rough / exact - 1) < 0.01


@pytest.mark.parametrize('which', [1, 2])
def test_fast_coefficients_are_least_squares_in_float32(fast, which):
  signals, atoms, codes = fast
  residuals = signals - np.asarray(reconstruct(codes[which], atoms))
  products = np.einsum('nd,dns->ns', residuals, atoms[:, codes[which].atoms])
  assert np.abs(products).max() < 2e-5


def test_fast_positive_codes_are_near_the_exact_ones():
  problem = reference.random_problem(0, 60, 16, 48)
  exact = batch_omp(*problem, S, positive=True)
  code = batch_omp(*problem, S, positive=True, precision='bfloat16')
  assert support_share(code, exact) > 0.9
  assert (np.asarray(code.coefficients) >= 0).all()
