"""Arrays in files, whole and damaged."""

import io
import zipfile

import numpy as np
import pytest

from lasers_jax.core.arrays import (
  read_arrays,
  read_with_header,
  write_arrays,
)


@pytest.mark.parametrize('compress', [False, True])
def test_arrays_are_read_as_they_were_saved(compress, tmp_path):
  arrays = {'a': np.arange(6000).reshape(2, -1), 'b/c': np.float32([[1.5]])}
  write_arrays(tmp_path / 'x.npz', arrays, compress=compress)
  assert ((tmp_path / 'x.npz').stat().st_size < 24_000) == compress
  found = read_arrays(tmp_path / 'x.npz')
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


def _declare(path, shape, dtype='<f8', data=bytes(8)):
  """An .npz file of an array that says its shape and has other data."""
  head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}"
  head = head.ljust(117) + '\n'
  header = b'\x93NUMPY\x01\x00' + len(head).to_bytes(2, 'little')
  _pack(path, 'a.npy', header + head.encode() + data)


def _pack(path, name, data):
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr(name, data)


def _npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


@pytest.mark.parametrize(
  'make',
  [
    lambda path: path.mkdir(),
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(b'PK\3\4 something'),
    lambda path: path.write_text('{"weights": 3}'),
    lambda path: np.savez_compressed(path, a=np.zeros(2**23 + 1)),
    lambda path: np.savez(path, a=np.array([{}], object)),
    lambda path: path.write_bytes(_npy(np.zeros(3))),
    lambda path: _pack(path, 'a.npy', b'text'),
    lambda path: _pack(path, 'a.txt', b'text'),
    lambda path: _declare(path, (10**15,)),
    lambda path: _declare(path, (10**9,)),
    lambda path: _declare(path, (-3,)),
    lambda path: _declare(path, (1,), '|O'),
    lambda path: _declare(path, '(' * 5000),
  ],
  ids=[
    'folder', 'empty', 'cut', 'json', 'compressed', 'objects', 'npy', 'text',
    'no-arrays', 'terabytes', 'gigabytes', 'negative', 'pickle', 'nested',
  ],
)  # fmt: skip
def test_what_is_no_file_of_arrays(make, tmp_path):
  path = tmp_path / 'x.npz'
  make(path)
  with pytest.raises(ValueError) as error:
    read_arrays(path)
  assert str(error.value)
  assert '\n' not in str(error.value)
  assert len(str(error.value)) <= 200


def test_arrays_that_are_not_there(tmp_path):
  with pytest.raises(FileNotFoundError):
    read_arrays(tmp_path / 'x.npz')


def test_a_header_stands_beside_the_arrays(tmp_path):
  path, header = tmp_path / 'x.npz', {'name': 'x', 'sizes': [1, 2.5, None]}
  write_arrays(path, {'a': np.arange(3)}, header)
  found, arrays = read_with_header(path)
  assert found == header
  assert arrays.keys() == {'a'}
  np.testing.assert_array_equal(arrays['a'], [0, 1, 2])


@pytest.mark.parametrize('text', [None, '{', '[' * 5000])
def test_a_header_that_is_missing_or_damaged(text, tmp_path):
  path = tmp_path / 'x.npz'
  write_arrays(path, {} if text is None else {'header.json': np.array(text)})
  with pytest.raises(ValueError, match='header.json'):
    read_with_header(path)
