"""What holds for every prior, on few latents and with small settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import PRIORS, base, draw
from lasers_jax.priors.vector.base import check_latents, fold_rows, pick_cells
from tests.priors.vector.small import LATENTS, small

pytestmark = pytest.mark.slow

KEY = jax.random.key(5)


def mesh():
  kinds = (jax.sharding.AxisType.Auto,) * 2
  return jax.make_mesh((8, 1), ('data', 'model'), axis_types=kinds)


@pytest.mark.parametrize('name', PRIORS)
def test_the_same_samples_on_one_device_and_on_eight(name, fitted):
  prior, state = small(name), fitted(name)
  alone = np.asarray(draw(prior, state, KEY, 16))
  assert alone.shape == (16, 3)
  assert alone.dtype == np.float32
  assert np.isfinite(alone).all()
  split = draw(prior, state, KEY, 16, mesh())
  assert {x.data.shape for x in split.addressable_shards} == {(2, 3)}
  np.testing.assert_allclose(split, alone, rtol=1e-5, atol=1e-6)
  other = draw(prior, state, jax.random.key(6), 16)
  assert not np.allclose(other, alone)


def test_many_rows_are_drawn_in_pieces(fitted, monkeypatch):
  # Of 10 rows and of 3, which eight devices do not divide.
  prior, state = small('pmfs'), fitted('pmfs')
  first, second = jax.random.split(KEY)
  pieces = [
    draw(prior, state, first, 10),
    draw(prior, state, second, 3, mesh()),
  ]
  monkeypatch.setattr(base, '_PIECE', 3 * 10)
  rows = draw(prior, state, KEY, 13, mesh())
  np.testing.assert_array_equal(rows, np.concatenate(pieces))


@pytest.mark.parametrize('name', PRIORS)
def test_only_densities_have_log_prob(name, fitted):
  prior = small(name)
  if prior.has_density:
    log_prob = prior.log_prob(fitted(name), LATENTS[:5])
    assert log_prob.shape == (5,)
    assert log_prob.dtype == jnp.float32
    assert np.isfinite(log_prob).all()
  else:
    with pytest.raises(NotImplementedError, match='has no density'):
      prior.log_prob(fitted(name), LATENTS[:5])


@pytest.mark.parametrize('name', PRIORS)
def test_bad_latents_are_refused(name):
  for latents, message in [
    (np.zeros((0, 3)), r'no latents to fit: got the shape \(0, 3\)'),
    (np.full((20, 3), np.nan), 'NaN or infinite values, first in row 0'),
  ]:
    with pytest.raises(InputError, match=message):
      small(name).fit(latents)


def test_latents_are_checked():
  assert check_latents(LATENTS) is LATENTS
  late = np.ones((base._CHUNK + 9, 1))
  late[-2] = 1e39  # too large for float32
  for latents, least, message in [
    (np.zeros(3), 1, r'must be \[n, d\], got the shape \(3,\)'),
    (np.zeros((3, 0)), 1, r'got the shape \(3, 0\)'),
    (LATENTS[:4], 5, '4 latents are too few: the prior needs 5 or more'),
    (late, 1, f'first in row {len(late) - 2}'),
  ]:
    with pytest.raises(InputError, match=message):
      check_latents(latents, least)


@pytest.mark.parametrize('n', [0, -1, 2.5])
def test_a_number_of_samples_is_a_whole_one(n, fitted):
  with pytest.raises(InputError, match=f'whole number from 1 up, got {n}'):
    draw(small('pmfs'), fitted('pmfs'), KEY, n)


def test_points_have_the_width_of_latents(fitted):
  for name in ('pmfs', 'gaussian', 'kde', 'product'):
    with pytest.raises(ValueError, match=r'points must be \[m, 3\], got'):
      small(name).log_prob(fitted(name), np.zeros((4, 2)))


def test_priors_are_frozen():
  for name in PRIORS:
    with pytest.raises(dataclasses.FrozenInstanceError):
      small(name).k = 3


@pytest.mark.parametrize('n', [3, 4, 11])
def test_rows_are_folded_once_each(n):
  rows = jnp.arange(2.0 * n).reshape(n, 2)

  def step(total, chunk, counted):
    return total + jnp.sum(chunk * counted[:, None], axis=0)

  total = fold_rows(step, jnp.zeros(2), rows, size=4)
  np.testing.assert_array_equal(total, rows.sum(axis=0))


@pytest.mark.parametrize('cells', [1, 8])
def test_every_cell_is_picked(cells):
  counts = np.ones((1, cells), np.int32)
  found = jax.jit(pick_cells, static_argnums=2)(KEY, counts, 4000)
  assert set(found[:, 0].tolist()) == set(range(cells))


def test_cells_are_picked_by_their_counts():
  counts = np.array([[0, 1, 0, 3, 0], [4, 0, 0, 0, 0]], np.int32)
  pick = jax.jit(pick_cells, static_argnums=2)
  cells = np.asarray(pick(KEY, counts, 4000))
  assert cells.shape == (4000, 2)
  assert set(cells[:, 0]) == {1, 3}
  assert set(cells[:, 1]) == {0}
  # Four standard deviations of the share.
  assert abs((cells[:, 0] == 1).mean() - 0.25) < 4 * (0.1875 / 4000) ** 0.5


# The smallest settings whose density says something, by name and variant.
DENSE = {
  'pmfs': {'k': 7},
  'pmfs-fine': {'k': 1000},
  'pmfs-around': {'k': 7, 'variant': 'around'},
  'gaussian': {},
  'kde': {'bandwidth': 0.3},
  'product': {'k': 8},
  'gmm': {'components': 2},
  'gmm-batches': {'components': 2, 'em': 'batches', 'batch_size': 100},
}
ALL = {
  **DENSE,
  'kde-chosen': {},
  'flow': {'width': 8, 'depth': 1, 'steps': 30, 'sampling_steps': 2},
  'histogram': {'width': 2},
}


def of(name, settings):
  return PRIORS[name.partition('-')[0]](**settings)


@pytest.mark.parametrize('name', ALL)
def test_samples_scale_and_shift_with_the_latents(name):
  prior = of(name, ALL[name])
  rng = np.random.default_rng(3)
  latents = rng.normal(size=(200, 4)) * [1, 0.5, 0.1, 1]
  found = []
  # Powers of two change no digit: what differs is a number that does not scale.
  for scale, shift in ((1, 0), (2.0**-20, 0), (2.0**20, 0), (2.0**-13, 8)):
    x = (scale * (latents + shift)).astype(np.float32)
    state = prior.fit(x)
    drawn = np.asarray(draw(prior, state, KEY, 400), np.float64)
    density = 0
    if prior.has_density:
      density = np.asarray(prior.log_prob(state, x), np.float64)
      density = density.mean() + 4 * np.log(scale)
    found.append((drawn / scale - shift, density))
  (expected, expected_density), *others = found
  for i, (drawn, density) in enumerate(others):
    shifted = i == 2
    for moment, atol in (np.mean, 0.02), (np.std, 0.02):
      np.testing.assert_allclose(
        moment(drawn, axis=0), moment(expected, axis=0),
        atol=atol if shifted else 1e-4,
      )  # fmt: skip
    # Near the edge of a cell, rounding decides.
    atol = 0.05 if shifted else 1e-3
    np.testing.assert_allclose(density, expected_density, atol=atol)


@pytest.mark.parametrize('name', ALL)
def test_all_is_float32_also_where_jax_has_float64(name):
  settings = ALL[name] | ({'width': 3} if name == 'histogram' else {})
  prior = of(name, settings)
  with jax.enable_x64(True):
    state = prior.fit(LATENTS.astype(np.float64))
    drawn = prior.sample(state, KEY, 20)
    density = prior.log_prob(state, drawn) if prior.has_density else None
  assert drawn.dtype == np.float32
  assert np.isfinite(drawn).all()
  assert {x.dtype.itemsize for x in map(np.asarray, state.values())} <= {
    1,
    2,
    4,
    8 if 'places' in state else 4,
  }
  if density is not None:
    assert density.dtype == np.float32
    assert np.isfinite(density).all()


def kinds_of_latents():
  rng = np.random.default_rng(4)
  x = rng.normal(size=(300, 6))
  return {
    'three': x[rng.integers(0, 3, 300)],
    'twenty': x[rng.integers(0, 20, 300)] + 1000,
    'constant': np.where(np.arange(6) == 2, 0.1, x),
    'dependent': np.where(np.arange(6) == 2, 2 * x[:, :1], x),
    'fewer': x[:5],
    'integers': rng.integers(0, 3, (300, 6)),
    'far': 1e4 + 0.1 * x,
    'apart': np.where(np.arange(300)[:, None] % 2, 100 + 0.01 * x, -100 - x),
    'uneven': x * [1e3, 1, 1e-2, 1, 1, 1],
    'large': 1e30 * x,
    'small': 1e-30 * x,
  }


@pytest.mark.parametrize('kind', kinds_of_latents())
@pytest.mark.parametrize('name', DENSE)
def test_there_is_a_density_at_latents_and_at_samples(name, kind):
  prior, latents = of(name, DENSE[name]), kinds_of_latents()[kind]
  latents = latents.astype(np.float32)
  state = prior.fit(latents)
  # Not compiled whole: the same small programs do for all kinds.
  drawn = np.asarray(prior.sample(state, KEY, 300))
  assert np.isfinite(drawn).all()
  for points in latents, drawn:
    density = np.asarray(prior.log_prob(state, points))
    assert not np.isnan(density).any()
    assert not np.isneginf(density).any()


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('latents', [LATENTS[:1], LATENTS[[0] * 20]])
def test_a_single_latent_comes_back_or_is_refused(name, latents):
  settings = ALL[name] | ({'width': 3} if name == 'histogram' else {})
  prior = of(name, settings)
  try:
    state = prior.fit(latents)
  except InputError as error:
    assert 'too few' in str(error) or 'are equal' in str(error)
    return
  drawn = np.asarray(prior.sample(state, KEY, 50))
  np.testing.assert_allclose(drawn, latents[[0] * 50], atol=1e-5)
  if prior.has_density:
    density = np.asarray(prior.log_prob(state, latents))
    assert np.isfinite(density).all()
