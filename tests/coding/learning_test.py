import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lasers_jax import coding
from lasers_jax.coding import Revive, SparseCode
from tests.coding.omp_reference import random_problem

N, D, K, S = 400, 16, 24, 2
LEARNERS = {
  'online': coding.online(S),
  'ksvd': coding.ksvd(S),
  'gradient': coding.gradient(S, learning_rate=0.02),
}
each_learner = pytest.mark.parametrize('name', LEARNERS)


@functools.cache
def planted() -> tuple[np.ndarray, np.ndarray]:
  """A dictionary, and batches [30, N, D] of its sparse sums with noise."""
  rng = np.random.default_rng(0)
  truth = np.asarray(coding.random_dictionary(jax.random.key(7), (D, K)))
  rows = np.zeros((30 * N, K), np.float32)
  for row in rows:
    chosen = rng.choice(K, S, replace=False)
    row[chosen] = rng.uniform(0.5, 1.5, S) * rng.choice([-1, 1], S)
  noise = 0.02 * rng.standard_normal((30 * N, D))
  signals = (rows @ truth.T + noise).astype(np.float32)
  return truth, signals.reshape(30, N, D)


def from_signals():
  picked = coding.pick_signals(jax.random.key(1), planted()[1][0], K)
  return coding.normalize_atoms(picked.T)


@functools.cache
def first_states(name):
  """The start, and what one batch makes of it."""
  state = LEARNERS[name].init(from_signals())
  return state, LEARNERS[name].update(state, planted()[1][0])


@functools.cache
def learned(name, rounds=4):
  state = LEARNERS[name].init(from_signals())
  for _ in range(rounds):
    for signals in planted()[1]:
      state = LEARNERS[name].update(state, signals)
  return state


def found(dictionary) -> float:
  """The share of the planted atoms that were found, up to their signs."""
  cosines = np.abs(planted()[0].T @ np.asarray(dictionary)).max(axis=1)
  return np.mean(cosines > 0.98)


def values(state):
  """The arrays of a state, keys as integers."""
  return jax.tree.map(
    np.asarray, state._replace(key=jax.random.key_data(state.key))
  )


def assert_close(a, b, atol=1e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, 1e-4, atol),
    values(a),
    values(b),
  )


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, values(a), values(b))


def assert_valid(dictionary):
  np.testing.assert_allclose(
    np.linalg.norm(dictionary, axis=0), np.ones(K), rtol=1e-5
  )


@each_learner
def test_finds_a_planted_dictionary(name):
  assert found(from_signals()) < 0.1
  dictionary = LEARNERS[name].dictionary(learned(name))
  assert_valid(dictionary)
  assert found(dictionary) >= 0.7


@each_learner
def test_an_update_is_pure_and_deterministic(name):
  start, first = first_states(name)
  again = LEARNERS[name].update(start, planted()[1][0])
  assert_same(first, again)
  assert first.steps == 1
  assert start.steps == 0
  assert first.use.sum() == S * N


@each_learner
def test_signals_that_are_not_finite_count_as_zero(name):
  start, _ = first_states(name)
  signals = planted()[1][1].copy()
  signals[3], signals[8, 2], signals[9] = 0, 0, 0
  zeroed = signals.copy()
  zeroed[8] = 0
  signals[3, 1], signals[8, 2], signals[9] = np.nan, np.inf, -np.inf
  update = LEARNERS[name].update
  assert_same(update(start, signals), update(start, zeroed))


@each_learner
def test_signals_of_zero_move_nothing(name):
  start, _ = first_states(name)
  state = LEARNERS[name].update(start, np.zeros((N, D), np.float32))
  assert_close(state._replace(steps=start.steps), start, atol=1e-6)


@pytest.mark.parametrize('name', ['online', 'gradient'])  # those that train
def test_signals_split_over_devices(name):
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  split = NamedSharding(mesh, PartitionSpec('data'))
  whole = NamedSharding(mesh, PartitionSpec())
  start, one = first_states(name)
  signals = jax.device_put(planted()[1][0], split)
  eight = LEARNERS[name].update(jax.device_put(start, whole), signals)
  assert_close(one, eight, atol=1e-5)


def test_one_signal_at_a_time():
  learner = LEARNERS['online']
  state = learner.init(from_signals())
  for signal in planted()[1][0][:60]:
    state = learner.update(state, signal[None])
  assert_valid(state.dictionary)
  assert not np.allclose(state.dictionary, from_signals())


def exact_dictionaries(start, batches):
  """Learns in float64, with nothing forgotten or cut short.

  Every signal counts alike, and after each batch atoms move one by one, pass
  after pass, to a minimum of the surrogate (Mairal et al. 2009, equation 8).
  """
  atoms = start / np.linalg.norm(start, axis=0)
  codes, products = np.zeros((K, K)), np.zeros((D, K))
  for signals in batches:
    code = coding.batch_omp(signals, atoms, S)
    rows = np.zeros((len(signals), K))
    np.put_along_axis(rows, np.asarray(code.atoms), code.coefficients, 1)
    codes += rows.T @ rows
    products += signals.T @ rows
    for _ in range(1000):
      before = atoms.copy()
      for j in np.flatnonzero(np.diagonal(codes)):
        atoms[:, j] += (products[:, j] - atoms @ codes[:, j]) / codes[j, j]
        atoms[:, j] /= np.linalg.norm(atoms[:, j])
      if np.abs(atoms - before).max() < 1e-6:
        break
    yield atoms, codes


def test_without_forgetting_online_tends_to_the_exact_reference():
  rng = np.random.default_rng(1)
  start = planted()[0] + 0.1 * rng.standard_normal((D, K))
  online = coding.online(S, 1.0, revive=None)
  state, batches, distances = online.init(start), planted()[1][:20], []
  exact = exact_dictionaries(start, batches)
  for signals, found in zip(batches, exact, strict=True):
    state = online.update(state, signals)
    atoms, codes = found
    distances.append(np.abs(state.dictionary - atoms).max())
  assert distances[-1] < 0.1 * distances[0], distances
  # Statistics are means there and sums here.
  unit = 4.0 ** int(state.exponent)
  np.testing.assert_allclose(
    unit * state.memory.codes, codes / N, rtol=0.02, atol=0.01 * unit
  )


def reference_sweep(dictionary, signals, code):
  """Algorithm 5 of Rubinstein et al. 2008, atom by atom in float64."""
  atoms, signals = np.array(dictionary, float), np.asarray(signals, float)
  gamma = np.zeros((len(signals), K))
  np.put_along_axis(gamma, np.asarray(code.atoms), code.coefficients, 1)
  for j in range(K):
    users = np.flatnonzero(gamma[:, j])
    if users.size:
      atoms[:, j] = 0
      rest = signals[users] - gamma[users] @ atoms.T
      atom = rest.T @ gamma[users, j]
      atoms[:, j] = atom / np.linalg.norm(atom)
      gamma[users, j] = rest @ atoms[:, j]
  return atoms, np.take_along_axis(gamma, np.asarray(code.atoms), axis=1)


@pytest.fixture(scope='module')
def sweep():
  """A problem with an atom that none uses, and what a sweep makes of it."""
  signals, atoms = planted()[1][0], from_signals()
  code = coding.batch_omp(signals, atoms, S)
  unused = np.asarray(code.atoms) == 5
  code = SparseCode(code.atoms, jnp.where(unused, 0.0, code.coefficients))
  return signals, atoms, code, coding.ksvd_sweep(atoms, signals, code)


def test_ksvd_agrees_with_a_float64_reference(sweep):
  signals, atoms, code, (moved, fitted) = sweep
  expected, coefficients = reference_sweep(atoms, signals, code)
  np.testing.assert_allclose(moved, expected, atol=2e-5)
  np.testing.assert_allclose(fitted.coefficients, coefficients, atol=5e-5)
  np.testing.assert_allclose(moved[:, 5], atoms[:, 5], rtol=1e-6)


def test_ksvd_lowers_the_error_at_fixed_supports(sweep):
  signals, atoms, code, after = sweep
  before, after = (
    np.sum((signals - coding.reconstruct(c, d)) ** 2)
    for d, c in ((atoms, code), after)
  )
  assert after < 0.9 * before


def test_gradient_follows_the_slope_of_the_error():
  """The first step of Adam goes by the signs of the gradient."""
  start, first = first_states('gradient')
  signals = planted()[1][0]
  code = coding.batch_omp(signals, start.dictionary, S)

  def error(dictionary):
    atoms = coding.normalize_atoms(dictionary)
    return jnp.sum((signals - coding.reconstruct(code, atoms)) ** 2)

  slope = jax.grad(error)(start.dictionary) / 2 / np.sum(signals**2)
  np.testing.assert_allclose(first.memory.mean, 0.1 * slope, atol=1e-6)
  expected = coding.normalize_atoms(start.dictionary - 0.02 * np.sign(slope))
  clear = np.abs(slope) > 1e-6
  np.testing.assert_allclose(
    first.dictionary[clear], expected[clear], atol=1e-3
  )


# An atom that no signal has anything of, and two that are one.
DEAD, TWINS = 4, (6, 9)


@functools.cache
def with_revival(revive: Revive | None):
  """Starts online learning from bad atoms; the states after each batch."""
  signals = planted()[1][:4].copy()
  signals[..., 0] = 0
  start = from_signals().at[0].set(0)
  start = start.at[:, DEAD].set(jnp.eye(D)[0])
  start = start.at[:, TWINS[1]].set(-start[:, TWINS[0]])
  learner = coding.online(S, revive=revive)
  states = [learner.init(start)]
  for batch in signals:
    states.append(learner.update(states[-1], batch))
  return states


def coherence(dictionary, i, j) -> float:
  return abs(float(dictionary[:, i] @ dictionary[:, j]))


def test_dead_atoms_and_twins_are_replaced_when_it_is_time():
  # A batch uses an atom 33 times on average.
  start, late, *_ = with_revival(Revive(every=30))
  assert_valid(late.dictionary)
  assert coherence(start.dictionary, *TWINS) > 0.999
  assert coherence(late.dictionary, *TWINS) < 0.9
  # All that signals can give is orthogonal to the dead atom of before.
  assert start.dictionary[0, DEAD] == 1
  assert abs(late.dictionary[0, DEAD]) < 1e-6
  assert not late.use.any()
  assert late.key != start.key


def test_atoms_are_left_in_peace_until_it_is_time():
  for never, later in zip(
    with_revival(None), with_revival(Revive(every=1000)), strict=True
  ):
    assert_same(never, later)
  assert never.dictionary[0, DEAD] == 1
  assert never.use[DEAD] == 0
  assert never.use.sum() == 4 * S * N


def test_replaced_atoms_have_no_past_and_are_used():
  _, late, *_, last = with_revival(Revive(every=30))
  start = with_revival(None)[1]
  less_used = min(TWINS, key=lambda j: start.use[j])
  for atom in (DEAD, less_used):
    assert not late.memory.codes[atom].any()
    assert not late.memory.codes[:, atom].any()
    assert not late.memory.products[:, atom].any()
    assert last.memory.codes[atom, atom] > 0


def test_find_twins():
  angle = np.deg2rad([0, 1, 181, 90, 95, 40])
  atoms = jnp.asarray([np.cos(angle), np.sin(angle)], jnp.float32)
  use = jnp.array([1.0, 3.0, 2.0, 5.0, 5.0, 0.0])
  twins = coding.find_twins(atoms, use, 0.999)
  np.testing.assert_array_equal(twins, [1, 0, 1, 0, 0, 0])
  # Of equally used ones, the first stays.
  twins = coding.find_twins(atoms, use, 0.99)
  np.testing.assert_array_equal(twins, [1, 0, 1, 0, 1, 0])


def test_learners_of_the_same_settings_are_one_program():
  assert coding.online(S) is LEARNERS['online']
  assert coding.online(S, 0.5) is not LEARNERS['online']


def test_init_takes_atoms_of_any_length():
  learner = LEARNERS['online']
  atoms = np.ones((D, K)) * np.arange(1, K + 1)
  atoms[3, 5] = np.nan
  norms = np.linalg.norm(learner.init(atoms).dictionary, axis=0)
  np.testing.assert_allclose(norms, np.arange(K) != 5, rtol=1e-6)


@pytest.mark.parametrize(
  'shape, message',
  [
    ((3, D, K), r'dictionary must be \[D, K\], got \[3, 16, 24\]'),
    ((D, 1), 'the sparsity S must be from 1 to K = 1, got 2'),
  ],
)
def test_bad_dictionaries(shape, message):
  with pytest.raises(ValueError, match=message):
    LEARNERS['online'].init(np.ones(shape))


# Units


@pytest.mark.parametrize('make', ['online', 'gradient', 'ksvd'])
def test_the_dictionary_is_the_same_in_every_unit(make):
  rng = np.random.default_rng(11)
  start = rng.standard_normal((6, 9))
  signals = rng.standard_normal((80, 6)).astype(np.float32)
  learner = getattr(coding, make)(2)

  def learned(exponent):
    state = learner.init(start)
    for part in np.split(np.ldexp(signals, exponent), 4):
      state = learner.update(state, part)
    return np.asarray(learner.dictionary(state))

  expected = learned(0)
  np.testing.assert_allclose(np.linalg.norm(expected, axis=0), 1, atol=1e-5)
  assert np.abs(expected - learner.init(start).dictionary).max() > 1e-3
  for exponent in (-100, -70, 60, 120):
    np.testing.assert_array_equal(learned(exponent), expected)


def test_a_sweep_works_in_every_unit():
  signals, atoms = random_problem(12, 80, 6, 9)
  code = coding.batch_omp(signals, atoms, 2)
  expected, fitted = coding.ksvd_sweep(atoms, signals, code)
  for size in (2.0**-90, 2.0**90):
    scaled = coding.SparseCode(code.atoms, size * code.coefficients)
    found, again = coding.ksvd_sweep(atoms, size * signals, scaled)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
      again.coefficients, size * fitted.coefficients
    )
