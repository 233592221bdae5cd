"""What holds for every sampler, on few latents and with small settings."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.sampling import SAMPLERS, Sampler, base, draw, load, save
from lasers_jax.sampling.base import check_latents, fold_rows, pick_cells

SMALL = {
  'product': {'block': 2, 'k': 4},
  'gmm': {'components': 2, 'iterations': 20},
  'flow': {'width': 8, 'depth': 1, 'steps': 20, 'sampling_steps': 2},
  'histogram': {'width': 3},
}
LATENTS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
KEY = jax.random.key(5)


def small(name) -> Sampler:
  return SAMPLERS[name](**SMALL.get(name, {}))


@pytest.fixture(scope='module')
def fitted():
  """The state of each sampler by its name, fitted when it is asked for."""
  states = {}

  def state(name):
    if name not in states:
      states[name] = small(name).fit(LATENTS, seed=1)
    return states[name]

  return state


def mesh():
  kinds = (jax.sharding.AxisType.Auto,) * 2
  return jax.make_mesh((8, 1), ('data', 'model'), axis_types=kinds)


@pytest.mark.parametrize('name', SAMPLERS)
def test_the_same_samples_on_one_device_and_on_eight(name, fitted):
  sampler, state = small(name), fitted(name)
  alone = np.asarray(draw(sampler, state, KEY, 16))
  assert alone.shape == (16, 3) and alone.dtype == np.float32
  assert np.isfinite(alone).all()
  split = draw(sampler, state, KEY, 16, mesh())
  assert {x.data.shape for x in split.addressable_shards} == {(2, 3)}
  np.testing.assert_allclose(split, alone, rtol=1e-5, atol=1e-6)
  other = draw(sampler, state, jax.random.key(6), 16)
  assert not np.allclose(other, alone)


def test_many_rows_are_drawn_in_pieces(fitted, monkeypatch):
  # Of 10 rows and of 3, which eight devices do not divide.
  sampler, state = small('pmfs'), fitted('pmfs')
  first, second = jax.random.split(KEY)
  pieces = [
    draw(sampler, state, first, 10), draw(sampler, state, second, 3, mesh())
  ]
  monkeypatch.setattr(base, '_PIECE', 3 * 10)
  rows = draw(sampler, state, KEY, 13, mesh())
  np.testing.assert_array_equal(rows, np.concatenate(pieces))


@pytest.mark.parametrize('name', SAMPLERS)
def test_a_file_gives_back_the_sampler(name, fitted, tmp_path):
  sampler, state = small(name), fitted(name)
  path, about = tmp_path / 'sampler.npz', {'weights': 'abc'}
  save(path, sampler, state, about)
  again, loaded = load(path, about)
  assert again == sampler and hash(again) == hash(sampler)
  assert set(loaded) == set(state)
  for key, value in state.items():
    assert loaded[key].dtype == np.asarray(value).dtype
    np.testing.assert_array_equal(loaded[key], value)
  np.testing.assert_array_equal(
    draw(again, loaded, KEY, 16), draw(sampler, state, KEY, 16)
  )
  assert [x.name for x in tmp_path.iterdir()] == ['sampler.npz']


@pytest.mark.parametrize('name', SAMPLERS)
def test_only_densities_have_log_prob(name, fitted):
  sampler = small(name)
  if sampler.has_density:
    log_prob = sampler.log_prob(fitted(name), LATENTS[:5])
    assert log_prob.shape == (5,) and log_prob.dtype == jnp.float32
    assert np.isfinite(log_prob).all()
  else:
    with pytest.raises(NotImplementedError, match='has no density'):
      sampler.log_prob(fitted(name), LATENTS[:5])


@pytest.mark.parametrize('name', SAMPLERS)
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
    (LATENTS[:4], 5, '4 latents are too few: the sampler needs 5 or more'),
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


def test_a_file_of_another_model_is_refused(fitted, tmp_path):
  path = tmp_path / 'sampler.npz'
  save(path, small('pmfs'), fitted('pmfs'), {'weights': 'abc', 'split': 'a'})
  load(path)
  load(path, {'split': 'a'})
  with pytest.raises(InputError) as error:
    load(path, {'split': 'a', 'weights': 'def'})
  assert str(error.value) == (
    f'{path} was fitted for another model: weights is abc there and def here; '
    'fit the sampler again'
  )


def test_files_that_are_none_are_refused(fitted, tmp_path):
  with pytest.raises(InputError, match='there is no sampler at .*missing'):
    load(tmp_path / 'missing.npz')
  path = tmp_path / 'sampler.npz'
  save(path, small('gaussian'), fitted('gaussian'), {})
  whole = path.read_bytes()
  middle = whole.index(b'state/cholesky') + 160
  changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
  for content in (b'', b'text', whole[:-60], changed):
    path.write_bytes(content)
    with pytest.raises(InputError, match='damaged, or no file of a sampler'):
      load(path)
  np.savez(path, mean=np.zeros(3))
  with pytest.raises(InputError, match='damaged, or no file of a sampler'):
    load(path)


def test_unknown_samplers_and_settings_are_refused(tmp_path):
  path = tmp_path / 'sampler.npz'
  for text, message in [
    ({'sampler': 'dice', 'settings': {}}, "'dice', and those known are pmfs"),
    ({'sampler': 'pmfs', 'settings': {'z': 1}}, r"not know: \['z'\]"),
  ]:
    text = np.array(json.dumps(text | {'about': {}}))
    np.savez(path, **{'sampler.json': text})
    with pytest.raises(InputError, match=message):
      load(path)


def test_a_failed_save_leaves_the_file_before(fitted, tmp_path, monkeypatch):
  path = tmp_path / 'sampler.npz'
  save(path, small('pmfs'), fitted('pmfs'), {})
  before = path.read_bytes()

  def fail(*_, **__):
    raise OSError('the disk is full')

  monkeypatch.setattr(np, 'savez', fail)
  with pytest.raises(OSError):
    save(path, small('gaussian'), fitted('gaussian'), {})
  assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_samplers_are_frozen():
  for name in SAMPLERS:
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
  assert set(cells[:, 0]) == {1, 3} and set(cells[:, 1]) == {0}
  # Four standard deviations of the share.
  assert abs((cells[:, 0] == 1).mean() - 0.25) < 4 * (0.1875 / 4000) ** 0.5
