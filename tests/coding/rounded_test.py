import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax import coding

D, K, S = 6, 20, 3
LEVELS = np.array([-1.5, -0.5, 0.75, 2.0])


@pytest.fixture(scope='module')
def problem():
  rng = np.random.default_rng(0)
  signals = rng.standard_normal((200, D))
  atoms = rng.standard_normal((D, K))
  atoms /= np.linalg.norm(atoms, axis=0)
  return signals, atoms, rng.uniform(0.2, 1.5, K)


def code(signals, atoms, sizes, levels=LEVELS, s=S):
  arrays = (signals, atoms, sizes, levels)
  arrays = [jnp.asarray(x, jnp.float32) for x in arrays]
  return coding.rounded_pursuit(*arrays, s)


def reference(signal, atoms, sizes, s=S):
  """Tries every atom and level in each step, in float64."""
  left, steps = signal, []
  for _ in range(s):
    values = LEVELS[:, None, None] * sizes * atoms  # [L, D, K]
    errors = ((left[None, :, None] - values) ** 2).sum(axis=1)
    errors[:, [atom for atom, _ in steps]] = np.inf
    level, atom = np.unravel_index(errors.argmin(), errors.shape)
    steps.append((atom, level))
    left = left - values[level, :, atom]
  return np.array(steps), left


def test_each_step_leaves_the_least_error_of_all_atoms_and_levels(problem):
  found = code(*problem)
  for i, signal in enumerate(problem[0]):
    steps, _ = reference(signal, *problem[1:])
    np.testing.assert_array_equal(found.atoms[i], steps[:, 0])
    np.testing.assert_array_equal(found.bins[i], steps[:, 1])


def test_coefficients_are_the_products_with_what_is_left(problem):
  signals, atoms, sizes = problem
  found, left = code(*problem), signals
  for s in range(S):
    chosen = atoms.T[found.atoms[:, s]]
    products = np.sum(chosen * left, axis=1)
    np.testing.assert_allclose(found.coefficients[:, s], products, atol=1e-5)
    values = LEVELS[found.bins[:, s]] * sizes[found.atoms[:, s]]
    left = left - values[:, None] * chosen


def test_a_longer_code_starts_with_the_shorter(problem):
  shorter, longer = code(*problem, s=2), code(*problem, s=5)
  for few, many in zip(shorter, longer, strict=True):
    np.testing.assert_array_equal(few, many[:, :2])
  assert all(len(set(row)) == 5 for row in np.asarray(longer.atoms))


def test_codes_over_an_orthonormal_basis_come_back():
  rng = np.random.default_rng(1)
  basis = np.linalg.qr(rng.standard_normal((D, D)))[0]
  sizes = rng.uniform(0.5, 1.0, D)
  atoms = rng.permuted(np.tile(np.arange(D), (50, 1)), axis=1)[:, :S]
  bins = rng.integers(0, 4, atoms.shape)
  signals = np.einsum('ns,nsd->nd', LEVELS[bins] * sizes[atoms], basis.T[atoms])
  found = code(signals, basis, sizes)
  for row in range(50):
    pairs = zip(found.atoms[row], found.bins[row], strict=True)
    assert dict(map(tuple, np.array(list(pairs)))) == dict(
      zip(atoms[row], bins[row], strict=True)
    )


def test_it_loses_less_than_rounding_after_the_fit(problem):
  """With few levels, and levels fit to either."""
  signals, atoms, _ = problem
  signals, atoms = (jnp.asarray(x, jnp.float32) for x in (signals, atoms))
  fit = coding.batch_omp(signals, atoms, S)
  levels = np.quantile(fit.coefficients, [1 / 8, 3 / 8, 5 / 8, 7 / 8])
  bins = np.abs(np.asarray(fit.coefficients)[..., None] - levels).argmin(-1)
  after = fit._replace(coefficients=jnp.asarray(levels[bins], jnp.float32))
  found = code(signals, atoms, np.ones(K), levels)
  inside = coding.SparseCode(
    found.atoms, jnp.asarray(levels, jnp.float32)[found.bins]
  )
  lost = [
    np.sum((signals - coding.reconstruct(x, atoms)) ** 2)
    for x in (inside, after)
  ]
  assert lost[0] < 0.85 * lost[1]


def test_the_lowest_atom_wins_a_tie(problem):
  signals, atoms, sizes = problem
  found = code(signals, np.tile(atoms, 2), np.tile(sizes, 2), s=1)
  assert found.atoms.max() < K


def test_a_signal_is_coded_alike_whatever_comes_along(problem, as_in_use):
  coder = as_in_use(code)
  signals, *rest = problem
  many = coder(np.tile(signals, (30, 1)), *rest)
  for together, alone in zip(many, coder(signals[:7], *rest), strict=True):
    np.testing.assert_array_equal(together[:7], alone)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_signal_that_is_not_finite_is_coded_as_zero(problem, bad):
  signals, *rest = problem
  broken = signals.copy()
  broken[3, 1] = bad
  zero = signals.copy()
  zero[3] = 0.0
  for one, other in zip(code(broken, *rest), code(zero, *rest), strict=True):
    np.testing.assert_array_equal(one, other)
