"""States of codecs in files, whole and damaged."""

import json
import os

import numpy as np
import pytest

from lasers_jax.codec import (
  Codec,
  State,
  context,
  fit_scales,
  fit_tables,
  load,
  save,
)
from lasers_jax.errors import InputError
from tests.bottlenecks.rows import start_row
from tests.codec.codec_test import maps

STATE = State(
  'w' * 8,
  {'S': 2, 'step': 0.5, 'pursuit': 'rounded'},
  {'atoms': np.arange(20).reshape(1, 20) + 1, 'x@bias': np.arange(-4, 4)},
  np.linspace(-1, 1, 4, dtype=np.float32),
)


def same(a, b):
  assert a[:2] == b[:2]
  assert a.tables.keys() == b.tables.keys()
  for name, array in a.tables.items():
    np.testing.assert_array_equal(array, b.tables[name])
  np.testing.assert_array_equal(a.levels, b.levels)


def test_what_is_saved_is_loaded(tmp_path):
  path = str(tmp_path / 'codec.npz')
  save(path, STATE)
  same(load(path), STATE)
  assert load(path).hash() == STATE.hash()
  with pytest.raises(FileNotFoundError):
    load(str(tmp_path / 'other.npz'))


@pytest.mark.parametrize(
  ('numbers', 'bytes_each'),
  [
    ((1, 127), 1),
    ((-128, 5), 1),
    ((1, 128), 2),
    ((-129, 0), 2),
    ((1, 2**15), 4),
    ((1, 2**31), 8),
    ((-(2**31) - 1, -5), 8),
  ],
)
def test_integers_take_few_bytes(numbers, bytes_each, tmp_path):
  path = str(tmp_path / 'codec.npz')
  table = np.array(numbers, np.int64)
  state = STATE._replace(tables={'x@bias': table})
  save(path, state)
  with np.load(path) as stored:
    assert stored['x@bias'].dtype == f'<i{bytes_each}'
  same(load(path), state)
  assert load(path).tables['x@bias'].dtype == np.int64
  assert load(path).hash() == state.hash()


def test_numbered_tables_are_kept_as_one_array(tmp_path):
  path = str(tmp_path / 'codec.npz')
  rows = {str(i): np.arange(1, 5)[None] + i for i in range(300)}
  tables = {'atoms': np.array([[3, 4]]), **rows}
  for some in tables, {**tables, '300': np.array([[1]])}:
    state = STATE._replace(tables=some)
    save(path, state)
    same(load(path), state)
    with np.load(path) as stored:
      assert ('*' in stored) == (len(some) == len(tables))
  save(path, STATE._replace(tables=tables))
  whole = os.path.getsize(path)
  np.savez_compressed(path, **tables)
  assert whole < 0.1 * os.path.getsize(path)


def test_any_bits_that_change_are_an_error_or_nothing(tmp_path):
  """Or no change: some bits of a zip file say nothing."""
  path, rng = tmp_path / 'codec.npz', np.random.default_rng(0)
  save(str(path), STATE)
  whole, refused = path.read_bytes(), 0
  for trial in range(400):
    data = bytearray(whole)
    for _ in range(1 + trial % 3):
      data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    if trial % 10 == 0:
      data = data[: rng.integers(len(data))]
    path.write_bytes(data)
    try:
      same(load(str(path)), STATE)
    except InputError as error:
      refused += 1
      assert str(error).startswith(f'{path} is damaged: ')
      assert str(error).endswith('; remove it, and encode again')
      assert '\n' not in str(error)
  assert refused > 200


def parts(**changes):
  about = {'weights': 'w', 'changes': {}}
  whole = {
    'header.json': np.array(json.dumps(about)),
    'atoms': np.ones((1, 4), int),
  }
  return {name: x for name, x in {**whole, **changes}.items() if x is not None}


def about(text):
  return {'header.json': np.array(text)}


@pytest.mark.parametrize(
  'changes',
  [
    *(
      about(text)
      for text in (
        '[1]', 'null', '3', '"a"', '{}', '{"weights": "a"}', '', '{',
        '[' * 5000,
        '{"weights": 1, "changes": {}}', '{"weights": "a", "changes": 2}',
        '{"weights": "a", "changes": [1]}',
        '{"weights": "a", "changes": {"S": [1]}}',
        '{"weights": "a", "changes": {"S": {}}}',
        '{"weights": "a", "changes": {"S": null}}',
        '{"weights": "a", "changes": {"step": NaN}}',
      )
    ),
    {'header.json': None},
    {'header.json': np.zeros(3)},
    {'atoms': np.ones((1, 4))},
    {'atoms': np.ones((1, 4), np.uint32)},
    {'atoms': np.array(3)},
    {'atoms': np.ones((0, 4), int)},
    {'atoms': np.zeros((1, 4), int)},
    {'atoms': np.full((1, 4), 2**60)},
    {'x@bias': np.full((1, 4), -(2**60))},
    {'atoms': np.array(['a'])},
    {'*': np.array(3)},
    {'*': np.ones(3, int)},
    {'*': np.zeros((10**12, 0), int)},
    {'*': np.ones((2**16 + 1, 1), np.int8)},
    {'.levels': np.zeros(4)},
    {'.levels': np.zeros((2, 2), np.float32)},
    {'.levels': np.float32([])},
    {'.levels': np.float32([0, np.nan])},
  ],
)  # fmt: skip
def test_other_files_of_arrays_are_damaged_states(changes, tmp_path):
  path = str(tmp_path / 'codec.npz')
  np.savez(path, **parts())
  load(path)
  np.savez(path, **parts(**changes))
  with pytest.raises(InputError) as error:
    load(path)
  assert str(error.value).startswith(f'{path} is damaged: ')
  assert str(error.value).endswith('; remove it, and encode again')


def test_a_folder_is_no_state(tmp_path):
  with pytest.raises(InputError, match='damaged: Is a directory; remove it'):
    load(str(tmp_path))


def test_a_state_that_may_not_be_read(tmp_path, monkeypatch):
  def fail(*_, **__):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr('builtins.open', fail)
  with pytest.raises(InputError, match='damaged: Permission denied; remove it'):
    load(str(tmp_path / 'codec.npz'))


@pytest.mark.parametrize('with_context', [False, True])
@pytest.mark.parametrize('row', ['lasers', 'vq-ema', 'entropy', 'residual'])
def test_tables_of_other_codes_are_refused(row, with_context, monkeypatch):
  for module in context, fit_scales:
    monkeypatch.setattr(module, 'STEPS', 2)
  case = start_row(row)
  tables = fit_tables(case.module, maps(case, [(4, 4)] * 2), with_context)
  # What a network says is asked of the network alone.
  asked = [name for name in tables if '@' in name] or list(tables)
  Codec(case.module, 4, 4, tables, b'abcd')
  for name in asked:
    less = {k: x for k, x in tables.items() if k != name}
    other = {**tables, name: tables[name][..., :-1]}
    for changed in other, less:
      if (
        with_context
        and changed is less
        and name.endswith(('bias', 'scale_bins'))
      ):
        continue  # then there is no network, and a table does
      with pytest.raises(InputError, match=f'the table {name} is '):
        Codec(case.module, 4, 4, changed, b'abcd')
