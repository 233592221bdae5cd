"""What is saved of a prior comes back, or is refused."""

import json

import jax
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.priors.vector import PRIORS, draw, load, save
from tests.priors.vector.small import small

pytestmark = pytest.mark.slow

KEY = jax.random.key(5)


@pytest.mark.parametrize('name', PRIORS)
def test_a_file_gives_back_the_sampler(name, fitted, tmp_path):
  prior, state = small(name), fitted(name)
  path, about = tmp_path / 'prior.npz', {'weights': 'abc'}
  save(path, prior, state, about)
  again, loaded = load(path, about)
  assert again == prior
  assert hash(again) == hash(prior)
  assert set(loaded) == set(state)
  for key, value in state.items():
    assert loaded[key].dtype == np.asarray(value).dtype
    np.testing.assert_array_equal(loaded[key], value)
  np.testing.assert_array_equal(
    draw(again, loaded, KEY, 16), draw(prior, state, KEY, 16)
  )
  assert [x.name for x in tmp_path.iterdir()] == ['prior.npz']


def test_a_file_of_another_model_is_refused(fitted, tmp_path):
  path = tmp_path / 'prior.npz'
  save(path, small('pmfs'), fitted('pmfs'), {'weights': 'abc', 'split': 'a'})
  load(path)
  load(path, {'split': 'a'})
  with pytest.raises(InputError) as error:
    load(path, {'split': 'a', 'weights': 'def'})
  assert str(error.value) == (
    f'{path} was fitted for another model: weights is abc there and def here; '
    'fit the prior again'
  )


def test_files_that_are_none_are_refused(fitted, tmp_path):
  with pytest.raises(InputError, match='there is no prior at .*missing'):
    load(tmp_path / 'missing.npz')
  path = tmp_path / 'prior.npz'
  save(path, small('gaussian'), fitted('gaussian'), {})
  whole = path.read_bytes()
  middle = whole.index(b'cholesky') + 160
  changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
  for content in (b'', b'text', whole[:-60], changed):
    path.write_bytes(content)
    with pytest.raises(InputError, match='damaged, or no file of a prior'):
      load(path)
  np.savez(path, mean=np.zeros(3))
  with pytest.raises(InputError, match='damaged, or no file of a prior'):
    load(path)


def test_unknown_priors_and_settings_are_refused(tmp_path):
  path = tmp_path / 'prior.npz'
  for text, message in [
    ({'prior': 'dice', 'settings': {}}, "'dice', and those known are pmfs"),
    ({'prior': 'pmfs', 'settings': {'z': 1}}, r"not know: \['z'\]"),
  ]:
    text = np.array(json.dumps(text | {'about': {}}))
    np.savez(path, **{'header.json': text})
    with pytest.raises(InputError, match=message):
      load(path)


def test_a_failed_save_leaves_the_file_before(fitted, tmp_path, monkeypatch):
  path = tmp_path / 'prior.npz'
  save(path, small('pmfs'), fitted('pmfs'), {})
  before = path.read_bytes()

  def fail(*_, **__):
    raise OSError('the disk is full')

  monkeypatch.setattr(np, 'savez', fail)
  with pytest.raises(OSError, match='the disk is full'):
    save(path, small('gaussian'), fitted('gaussian'), {})
  assert path.read_bytes() == before
  assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('name', PRIORS)
def test_a_state_whose_arrays_are_of_no_fit_is_damaged(name, fitted, tmp_path):
  path, state = tmp_path / 'prior.npz', fitted(name)

  def damaged(state):
    save(path, small(name), state, {})
    with pytest.raises(InputError) as error:
      load(path)
    assert str(error.value).startswith(f'{path} is damaged, or no file of a ')
    assert str(error.value).endswith('; remove it, and fit the prior again')
    assert '\n' not in str(error.value)

  for key, x in state.items():
    x = np.asarray(x)
    damaged({**state, key: x.astype(np.float64)})
    damaged({**state, key: x.astype('U8')})
    if x.dtype == np.float32:
      damaged({**state, key: np.full_like(x, np.nan)})
    else:
      damaged({**state, key: x.astype(np.int32) - 2**20})
    if x.ndim and key != 'places':
      damaged({k: v for k, v in state.items() if k != key})
    # Of N(0, I) there is nothing but its width.
    if x.ndim and x.shape[-1] > 1 and name != 'normal':
      damaged({**state, key: x[..., :-1]})


@pytest.mark.parametrize(
  ('name', 'key', 'change'),
  [
    ('pmfs', 'bins', lambda x: np.full_like(x, 200)),
    ('pmfs', 'low', lambda x: x + 1e6),
    ('gaussian', 'cholesky', np.zeros_like),
    ('gmm', 'weights', np.negative),
    ('gmm', 'cholesky', np.negative),
    ('kde', 'deviations', np.negative),
    ('kde', 'bandwidth', np.zeros_like),
    ('product', 'edges', np.negative),
    ('product', 'counts', np.zeros_like),
  ],
)
def test_numbers_out_of_range_are_damage(name, key, change, fitted, tmp_path):
  path, state = tmp_path / 'prior.npz', fitted(name)
  save(path, small(name), {**state, key: change(np.asarray(state[key]))}, {})
  with pytest.raises(InputError, match='is damaged, or no file of a prior'):
    load(path)


@pytest.mark.parametrize(
  'text',
  [
    '[1]',
    'null',
    '"a"',
    '{',
    '',
    '[' * 5000,
    '{"prior": "pmfs"}',
    '{"prior": [], "settings": {}, "about": {}}',
    '{"prior": "pmfs", "settings": 3, "about": {}}',
    '{"prior": "pmfs", "settings": {}, "about": []}',
    '{"prior": "pmfs", "settings": {"k": "x"}, "about": {}}',
    '{"prior": "pmfs", "settings": {"k": 2.5}, "about": {}}',
    '{"prior": "pmfs", "settings": {"k": -1}, "about": {}}',
    '{"prior": "kde", "settings": {"held_out": null}, "about": {}}',
  ],
)
def test_what_a_file_says_of_itself_may_be_damaged(text, fitted, tmp_path):
  path = tmp_path / 'prior.npz'
  np.savez(path, **{'header.json': np.array(text)}, **fitted('pmfs'))
  with pytest.raises(InputError, match='fit the prior again'):
    load(path)


def test_a_folder_is_no_sampler(tmp_path):
  with pytest.raises(InputError, match='damaged, .*Is a directory'):
    load(tmp_path)


def test_bits_of_a_state_that_change_are_an_error_or_nothing(fitted, tmp_path):
  path, rng = tmp_path / 'prior.npz', np.random.default_rng(0)
  save(path, small('histogram'), fitted('histogram'), {})
  whole, refused = path.read_bytes(), 0
  for _ in range(200):
    data = bytearray(whole)
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    try:
      _, state = load(path)
    except InputError:
      refused += 1
      continue
    for key, x in fitted('histogram').items():
      np.testing.assert_array_equal(state[key], x)
  assert refused > 100
