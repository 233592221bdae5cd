"""What holds for any input; few shapes, so that little is compiled."""

from typing import NamedTuple

import hypothesis
import numpy as np
from hypothesis import strategies as st

from lasers_jax.coding import batch_omp, reconstruct
from tests.coding import omp_reference as reference

# (N, D, K, S), the second by residuals; see omp_options_test.py.
SHAPES = [(24, 6, 20, 3), (8, 2, 528, 2)]
EXACT = {
  'omp': {},
  'ols': {'selection': 'ols'},
  'positive': {'positive': True},
}
MODES = {**EXACT, 'fast': {'precision': 'bfloat16'}}
few = hypothesis.settings(
  max_examples=30, deadline=None, derandomize=True, database=None
)


def near(atoms, distance):
  """Makes the second half of the atoms twins of the first half."""
  half = atoms.shape[1] // 2
  twins = atoms.copy()
  twins[:, half:] = atoms[:, :half] + distance * atoms[:, half:]
  return reference.unit(twins)


def flat(atoms):
  """Leaves two dimensions to the atoms."""
  return reference.unit(np.concatenate([atoms[:2], 0 * atoms[2:]]))


ATOMS = {
  'any': lambda a: a,
  'equal': lambda a: near(a, 0),
  'opposite': lambda a: np.concatenate([a[:, ::2], -a[:, ::2]], axis=1),
  'close by 1e-2': lambda a: near(a, 1e-2),
  'close by 1e-4': lambda a: near(a, 1e-4),
  'close by 1e-6': lambda a: near(a, 1e-6),
  'some zero': lambda a: a * (np.arange(a.shape[1]) % 3 > 0),
  'all zero': lambda a: 0 * a,
  'some NaN': lambda a: np.where(np.arange(a.shape[1]) % 4, a, np.nan),
  'flat': flat,
  'signs': lambda a: reference.unit(np.sign(a)),
}
SIGNALS = {
  'any': lambda x, a: x,
  'zero': lambda x, a: 0 * x,
  'equal': lambda x, a: np.repeat(x[:1], len(x), axis=0),
  'integer': lambda x, a: np.round(2 * x),
  'atoms': lambda x, a: np.resize(a.T, x.shape),
  'some infinite': lambda x, a: np.where(
    np.arange(len(x))[:, None] % 3, x, np.inf
  ),
}


class Case(NamedTuple):
  """What a problem is made from; it prints better than arrays."""

  shape: tuple[int, int, int, int]
  seed: int
  atoms: str
  signals: str
  power: int  # of two, the scale of all signals
  uneven: bool  # whether they have scales of their own beside it
  mode: str

  def problem(self):
    """Makes signals [N, D], atoms [D, K], S and options."""
    n, d, k, s = self.shape
    x, a = reference.random_problem(self.seed, n, d, k)
    a = ATOMS[self.atoms](a).astype(np.float32)
    x = SIGNALS[self.signals](x, finite(a)).astype(np.float32)
    power = np.random.default_rng(self.seed).integers(-3, 4, (n, 1))
    x = np.ldexp(x, self.power + self.uneven * power)
    return x, a, s, MODES[self.mode]


def cases(signals=tuple(SIGNALS), modes=tuple(MODES)):
  return st.builds(
    Case,
    st.sampled_from(SHAPES),
    st.integers(0, 2**32 - 1),
    st.sampled_from(tuple(ATOMS)),
    st.sampled_from(signals),
    st.integers(-60, 60),
    st.booleans(),
    st.sampled_from(modes),
  )


def finite(atoms):
  """Atoms with an entry that is not finite count as zero."""
  return np.where(np.isfinite(atoms).all(axis=0), atoms, 0)


def decoded(code, atoms):
  """The reconstruction in float64."""
  rows = np.asarray(code.coefficients, np.float64)
  return np.einsum('ns,nsd->nd', rows, finite(atoms).T[np.asarray(code.atoms)])


@few
@hypothesis.given(cases())
def test_codes_are_valid(case):
  signals, atoms, s, options = case.problem()
  code = batch_omp(signals, atoms, s, **options)
  chosen, coefficients = map(np.asarray, code)
  assert chosen.dtype == np.int32
  assert coefficients.dtype == np.float32
  assert chosen.shape == coefficients.shape == (len(signals), s)
  assert chosen.min() >= 0
  assert chosen.max() < atoms.shape[1]
  assert (np.diff(np.sort(chosen, axis=1), axis=1) > 0).all(), 'atoms repeat'
  assert np.isfinite(coefficients).all()
  if 'positive' in options:
    assert (coefficients >= 0).all()
  useless = ~(np.isfinite(atoms).all(axis=0) & atoms.any(axis=0))
  assert not coefficients[useless[chosen]].any()


@few
@hypothesis.given(cases())
def test_codes_explain_what_their_atoms_can(case):
  signals, atoms, s, options = case.problem()
  code = batch_omp(signals, atoms, s, **options)
  rows = np.isfinite(signals).all(axis=1)
  norms = np.linalg.norm(np.float64(signals[rows]), axis=1)
  residuals = (signals - decoded(code, atoms))[rows]
  assert (np.linalg.norm(residuals, axis=1) <= norms * (1 + 1e-5)).all()
  # What is left stands orthogonal to the atoms in use.
  chosen = np.asarray(code.atoms)[rows]
  used = np.asarray(code.coefficients)[rows] != 0
  products = np.einsum('nd,nsd->ns', residuals, finite(atoms).T[chosen])
  # Close atoms have large coefficients of opposite sign, which round more.
  sizes = np.abs(np.asarray(code.coefficients, np.float64)[rows]).sum(axis=1)
  slack = (1e-5 * np.maximum(norms, sizes))[:, None]
  assert (np.abs(products) <= slack)[used].all()


@few
@hypothesis.given(cases(('any', 'integer', 'equal'), tuple(EXACT)))
def test_each_choice_is_the_best_but_for_rounding(case):
  signals, atoms, s, options = case.problem()
  code = batch_omp(signals, atoms, s, **options)
  atoms = finite(atoms)
  # Up to the last atom in use: the rest are those of a stopped pursuit.
  used = np.asarray(code.coefficients) != 0
  count = np.where(used.any(axis=1), s - used[:, ::-1].argmax(axis=1), 0)
  regret = reference.regret(
    signals, atoms, np.asarray(code.atoms), count, **options
  )
  assert regret.max() < 2e-5


@few
@hypothesis.given(cases(), st.integers(-30, 30))
def test_a_power_of_two_scales_the_code_exactly(case, power):
  signals, atoms, s, options = case.problem()
  code = batch_omp(signals, atoms, s, **options)
  scaled = batch_omp(np.ldexp(signals, power), atoms, s, **options)
  np.testing.assert_array_equal(scaled.atoms, code.atoms)
  np.testing.assert_array_equal(
    scaled.coefficients, np.ldexp(np.asarray(code.coefficients), power)
  )


@few
@hypothesis.given(cases(), st.integers(0, 2**32 - 1))
def test_the_order_of_the_signals_does_not_matter(case, seed):
  signals, atoms, s, options = case.problem()
  order = np.random.default_rng(seed).permutation(len(signals))
  code = batch_omp(signals, atoms, s, **options)
  found = batch_omp(signals[order], atoms, s, **options)
  for a, b in zip(found, code, strict=True):
    np.testing.assert_array_equal(a, np.asarray(b)[order])


@few
@hypothesis.given(cases(modes=('omp', 'ols')), st.floats(0.05, 1))
def test_pursuits_stop_as_soon_as_the_residual_norm_is_met(case, share):
  signals, atoms, s, options = case.problem()
  norms = np.linalg.norm(np.float64(signals), axis=1)
  norms = np.where(np.isfinite(norms), norms, 1)
  residual_norm = (share * norms).astype(np.float32)
  code = batch_omp(signals, atoms, s, residual_norm=residual_norm, **options)
  full = batch_omp(signals, atoms, s, **options)
  count = np.asarray(code.count)
  left = np.linalg.norm(signals - decoded(code, atoms), axis=1)
  slack = 1e-5 * norms
  stopped = np.isfinite(signals).all(axis=1) & (count < s)
  # Those that stopped early are within the residual_norm, or could not go on.
  stuck = ~np.asarray(full.coefficients).all(axis=1)
  assert (left <= residual_norm + slack)[stopped & ~stuck].all()
  used = np.arange(s) < count[:, None]
  np.testing.assert_array_equal(
    np.where(used, code.atoms, -1), np.where(used, full.atoms, -1)
  )
  # An atom less would not have been enough.
  for i in np.nonzero(count)[0]:
    chosen = finite(atoms)[:, np.asarray(code.atoms)[i, : count[i] - 1]]
    chosen = chosen.astype(np.float64)
    fit = reference.refit(signals[i], chosen)
    left = np.linalg.norm(signals[i] - chosen @ fit)
    assert left >= residual_norm[i] - slack[i]


@few
@hypothesis.given(cases())
def test_reconstruct_adds_up_the_atoms(case):
  signals, atoms, s, options = case.problem()
  atoms = finite(atoms)
  code = batch_omp(signals, atoms, s, **options)
  found = np.asarray(reconstruct(code, atoms))
  assert found.dtype == np.float32
  sizes = np.abs(np.asarray(code.coefficients)).sum(axis=1, keepdims=True)
  assert (np.abs(found - decoded(code, atoms)) <= 1e-6 * sizes).all()
