import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding.priced import (
  geometric_bits,
  priced_integers,
  priced_pursuit,
)
from tests.coding.platform_test import PLATFORMS, lowered

D, K, N, LIMIT = 6, 10, 300, 3


def orthonormal(rng, d):
  return np.linalg.qr(rng.standard_normal((d, d)))[0]


def problem(seed, n=N, d=D, k=K, price=0.15):
  """Signals in steps, [U | E], and prices of a usual size."""
  rng = np.random.default_rng(seed)
  extras = rng.standard_normal((d, k - d))
  extras /= np.linalg.norm(extras, axis=0)
  dictionary = np.concatenate([orthonormal(rng, d), extras], axis=1)
  signals = rng.laplace(size=(n, d))
  prices = price * rng.uniform(1, 7, (1, k))
  return [np.float32(x) for x in (signals, dictionary, prices)]


def pursue(signals, dictionary, prices, limit=LIMIT, **options):
  arrays = [jnp.asarray(x, jnp.float32) for x in (signals, dictionary, prices)]
  return np.asarray(priced_pursuit(*arrays, limit, **options))


def cost(q, signals, dictionary, prices):
  """J of each row, in float64."""
  q, x, a, p = (np.float64(y) for y in (q, signals, dictionary, prices))
  return ((x - q @ a.T) ** 2).sum(axis=1) + (p * np.abs(q)).sum(axis=1)


def alone(signals, dictionary, prices, limit=LIMIT):
  """The minimum over the first D atoms, each integer tried."""
  d = signals.shape[1]
  values = np.arange(-limit, limit + 1)
  x = np.float64(signals) @ np.float64(dictionary[:, :d])
  p = np.broadcast_to(prices, (len(x), prices.shape[1]))[:, :d, None]
  each = (x[..., None] - values) ** 2 + p * np.abs(values)
  return values[each.argmin(axis=-1)]


# The law


@pytest.mark.parametrize('mean', [1e-3, 0.3, 1.0, 20.0])
def test_the_law_adds_up_to_one_and_has_the_mean(mean):
  zero, unit = (float(x) for x in geometric_bits(jnp.float32(mean)))
  v = np.abs(np.arange(-3000, 3001))
  p = 2.0 ** -(zero + unit * v)
  np.testing.assert_allclose(p.sum(), 1, rtol=1e-4)
  np.testing.assert_allclose((p * v).sum(), mean, rtol=1e-4)


# Orthogonal atoms


@pytest.mark.parametrize('limit', [1, 3])
def test_orthonormal_atoms_have_the_best_integer_of_each(limit):
  x, u, p = problem(0, k=D)
  found = pursue(2 * x, u, p, limit)
  np.testing.assert_array_equal(found, alone(2 * x, u, p, limit))
  apart = priced_integers(jnp.asarray(2 * x @ u), jnp.asarray(p), limit)
  assert apart.dtype == jnp.int32
  np.testing.assert_array_equal(found, apart)


def test_orthogonal_atoms_of_any_norm_have_it_too():
  """With rows and signals scaled by the roots of weights of channels."""
  x, _, p = problem(1, k=D)
  roots = np.sqrt(np.random.default_rng(1).uniform(0.3, 3, D))
  found = pursue(x * roots, np.diag(roots), p)
  p = p / roots**2
  np.testing.assert_array_equal(found, alone(x, np.eye(D), p))


def test_for_nothing_integers_are_the_nearest():
  x = 3 * problem(2)[0]
  x[:5] = np.float32([[0.5], [1.5], [-0.5], [-2.5], [0]])  # ties too
  found = priced_integers(jnp.asarray(x), jnp.float32(0), LIMIT)
  expected = np.clip(np.round(x), -LIMIT, LIMIT)
  np.testing.assert_array_equal(found, expected)


def test_a_site_may_have_prices_of_its_own():
  x, a, p = problem(3)
  each = np.random.default_rng(3).uniform(0.5, 2, (N, 1)).astype('f4') * p
  together = pursue(x, a, each)
  for i in (0, 7):
    row = pursue(x[i : i + 1], a, each[i : i + 1])
    np.testing.assert_array_equal(together[i], row[0])


# Any dictionary


def test_cost_never_rises_along_the_loop():
  """By 1e-4, where rounding counts, at most."""
  given = problem(4)
  before = np.inf
  for steps in (0, 1, 2, 3, 4, 6, 10, 256):
    now = cost(pursue(*given, steps=steps), *given)
    assert (now <= before + 1e-4).all()
    before = now


def test_the_end_is_as_good_as_each_start():
  x, a, p = given = problem(5)
  end = cost(pursue(*given), *given)
  starts = {
    'zero': np.zeros((N, K)),
    'rounded': np.pad(alone(x, a, 0 * p), ((0, 0), (0, K - D))),
    'alone': np.pad(alone(x, a, p), ((0, 0), (0, K - D))),
  }
  for start in starts.values():
    assert (end <= cost(start, *given) + 1e-4).all()
  assert end.mean() < 0.97 * cost(starts['alone'], *given).mean()


def test_no_single_change_is_left_that_lowers_the_cost():
  given = problem(6, n=40)
  found = pursue(*given)
  end = cost(found, *given)
  for k in range(K):
    for change in (-2, -1, 1, 2):
      other = found.copy()
      other[:, k] += change
      lower = cost(other, *given) < end - 1e-3
      assert not (lower & (np.abs(other[:, k]) <= LIMIT)).any()


@pytest.mark.parametrize('d', [2, 3])
@pytest.mark.parametrize('price', [0.05, 0.15, 0.3])
def test_it_is_near_the_minimum_over_all_codes(d, price):
  """In the mean; at the prices in use, nearly every signal."""
  given = problem(7, n=2000, d=d, k=4, price=price)
  codes = np.array(list(itertools.product((-1, 0, 1), repeat=4)))
  each = [cost(np.broadcast_to(q, (len(given[0]), 4)), *given) for q in codes]
  least = np.min(each, axis=0)
  end = cost(pursue(*given, limit=1), *given)
  assert (end >= least - 1e-4).all()
  assert end.mean() < 1.05 * least.mean()
  if price >= 0.15:
    assert np.mean(end < 1.05 * least + 1e-4) > 0.95


def test_a_higher_price_buys_fewer_units_and_more_error():
  x, a, p = problem(8, n=2000)
  units, errors = [], []
  for times in (0, 0.5, 1, 2, 4):
    q = pursue(x, a, times * p)
    units.append(np.abs(q).sum())
    errors.append(((x - q @ a.T) ** 2).sum())
  assert (np.diff(units) < 0).all()
  assert (np.diff(errors) > 0).all()


def test_a_flat_signal_takes_no_atom():
  _, a, p = problem(9)
  assert not pursue(np.zeros((3, D)), a, p).any()
  assert not pursue(np.full((3, D), 0.05), a, p).any()


def test_the_lowest_atom_wins_a_tie():
  """Of twins beside the basis, and where two are changed for as much."""
  twins = np.ones((2, 2)) / np.sqrt(2)
  a = np.concatenate([np.eye(2), twins], axis=1)
  p = np.full((1, 4), 0.5)
  np.testing.assert_array_equal(pursue([[0.71, 0.71]], a, p), [[0, 0, 1, 0]])


# Numbers


@pytest.mark.parametrize('k', [D, K])
def test_a_signal_is_coded_alike_whatever_comes_along(k, as_in_use):
  coder = as_in_use(lambda *x: priced_pursuit(*x, LIMIT))
  x, a, p = problem(10, n=2500, k=k)
  many = np.asarray(coder(x, a, p))
  np.testing.assert_array_equal(many[:7], coder(x[:7], a, p))
  np.testing.assert_array_equal(many[::-1], coder(x[::-1], a, p))


@pytest.mark.parametrize('split', [(8, 1), (2, 4)])
def test_eight_devices_find_the_codes_of_one(split):
  x, a, p = problem(11, n=64, d=8, k=16)
  mesh = jax.make_mesh(
    split,
    ('data', 'model'),
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
  )

  def put(x, *axes):
    return jax.device_put(x, jax.NamedSharding(mesh, jax.P(*axes)))

  places = put(x, 'data'), put(a, None, 'model'), put(p, None, 'model')
  found = priced_pursuit(*places, LIMIT)
  assert len(found.sharding.device_set) == 8
  np.testing.assert_array_equal(found, pursue(x, a, p))


@pytest.mark.parametrize('platform', PLATFORMS)
def test_it_is_compiled_for_every_platform(platform):
  shapes = [
    jax.ShapeDtypeStruct(x, jnp.float32) for x in ((9, D), (D, K), (1, K))
  ]
  text = lowered(lambda *x: priced_pursuit(*x, LIMIT), platform, *shapes)
  assert 'stablehlo.while' in text
  shapes[1:] = [jax.ShapeDtypeStruct(x, jnp.float32) for x in ((D, D), (1, D))]
  text = lowered(lambda *x: priced_pursuit(*x, LIMIT), platform, *shapes)
  assert ('stablehlo.while' in text) == (platform == 'cpu')  # its blocks


def test_it_may_be_mapped():
  x, a, p = problem(12, n=20)
  mapped = jax.vmap(lambda x: priced_pursuit(x, a, p, LIMIT))
  found = mapped(jnp.asarray(x).reshape(4, 5, D))
  np.testing.assert_array_equal(found.reshape(20, K), pursue(x, a, p))


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_signal_that_is_not_finite_is_coded_as_zero(bad):
  x, a, p = problem(13, n=9)
  x[3, 1] = bad
  found = pursue(x, a, p)
  assert not found[3].any()
  x[3] = 0
  np.testing.assert_array_equal(found, pursue(x, a, p))


@pytest.mark.parametrize('size', [1e-30, 1e6, 3e38])
def test_extremes_stay_within_the_limit(size):
  x, a, p = problem(14, n=9)
  found = pursue(size * np.sign(x), a, p)
  assert np.abs(found).max() == (LIMIT if size > 1 else 0)


def test_an_atom_of_zero_is_never_taken():
  x, a, p = problem(15, n=50)
  a[:, [1, 8]] = 0
  assert not pursue(x, a, p)[:, [1, 8]].any()


@pytest.mark.parametrize(
  'shapes, message',
  [
    ([(5, D), (D, D - 1), (1, D - 1)], 'must have K >= D = 6 atoms, got 5'),
    ([(5, D), (D + 1, K), (1, K)], 'dictionary must be'),
    ([(5, D), (D, K), (1, K + 1)], 'prices must be'),
  ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
  with pytest.raises(ValueError, match=message):
    priced_pursuit(*(jnp.zeros(x) for x in shapes), LIMIT)


# Its use in training


@pytest.mark.parametrize('k', [D, K])
def test_the_gradient_of_the_minimum_is_that_at_its_code(k):
  """The envelope theorem, by differences in float64, away from ties."""
  x, a, p = problem(16, k=k)
  q = pursue(x, a, p)
  rest = x - q @ a.T
  rng = np.random.default_rng(16)
  size, tried, near = 1e-3, 0, 0
  for _ in range(20):
    to_x = rng.standard_normal(x.shape).astype('f4')
    # Extras move; the basis stays one.
    to_a = np.where(np.arange(k) < D, 0, rng.standard_normal(a.shape))
    sides = [pursue(x + s * to_x, a + s * to_a, p) for s in (-size, size)]
    stays = np.all([(y == q).all(axis=1) for y in sides], axis=0)
    ends = [
      cost(y, x + s * to_x, a + s * to_a, p)
      for y, s in zip(sides, (-size, size), strict=True)
    ]
    slopes = (ends[1] - ends[0]) / (2 * size)
    expected = 2 * (rest * to_x).sum(axis=1)
    expected -= 2 * (rest * (q @ to_a.T)).sum(axis=1)
    np.testing.assert_allclose(
      slopes[stays], expected[stays], rtol=1e-3, atol=1e-3
    )
    tried, near = tried + len(x), near + stays.sum()
  assert near > 0.9 * tried
