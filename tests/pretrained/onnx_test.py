"""Files of ONNX, as arrays."""

import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.pretrained.weights import read_weights
from tests.pretrained.onnx_files import (
  FLOAT32,
  as_onnx,
  field,
  initializer,
  of_arrays,
)

ARRAYS = {
  'cv1.weight': np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1),
  'cv1.bias': np.ones(300, np.float32),  # a side of two bytes
  'one': np.array(0.5, np.float32),
}
ONE = initializer('a', np.ones(2, np.float32))


def read(data, folder):
  (folder / 'w.onnx').write_bytes(data)
  return read_weights(folder / 'w.onnx')


def assert_same(arrays, expected):
  assert arrays.keys() == expected.keys()
  for name, array in arrays.items():
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, expected[name])


def test_arrays_are_read_as_they_were_written(tmp_path):
  assert_same(read(of_arrays(ARRAYS), tmp_path), ARRAYS)


def test_what_the_library_writes(tmp_path):
  onnx = pytest.importorskip('onnx', reason='onnx is not installed')
  arrays = {
    **ARRAYS,
    'half': np.linspace(-1, 1, 5).astype(np.float16),
    'steps': np.array([3, 4]),  # no weights
  }
  made = [onnx.numpy_helper.from_array(x, name) for name, x in arrays.items()]
  graph = onnx.helper.make_graph([], 'main', [], [], made)
  found = read(onnx.helper.make_model(graph).SerializeToString(), tmp_path)
  del arrays['steps']
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


def test_sides_may_stand_together(tmp_path):
  numbers = field(2, FLOAT32) + field(8, 'a') + field(9, bytes(24))
  found = read(as_onnx([field(1, b'\x02\x03') + numbers]), tmp_path)
  assert_same(found, {'a': np.zeros((2, 3), np.float32)})


HOSTILE = {
  'no arrays': (as_onnx([]), 'is no file of weights: ONNX without arrays'),
  'other files': (as_onnx([ONE + field(14, 1)]), 'keeps its arrays in other'),
  'six numbers in two': (as_onnx([field(1, 3) + ONE]), 'ValueError'),
  'many sides': (as_onnx([field(1, 1) * 65 + ONE]), 'ValueError'),
  'many sides at once': (as_onnx([field(1, bytes(99)) + ONE]), 'ValueError'),
  'many arrays': (as_onnx([b''] * (2**16 + 1)), 'ValueError'),
  'cut': (as_onnx([ONE])[:-20], 'EOFError'),
  'an integer without end': (b'\x08' + b'\xff' * 99, 'ValueError'),
  'a group': (b'\x08\x01\x0b', 'KeyError'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_damaged_and_hostile_files_are_one_line(name, tmp_path):
  data, problem = HOSTILE[name]
  with pytest.raises(InputError, match=rf'w\.onnx .*{problem}') as raised:
    read(data, tmp_path)
  assert '\n' not in str(raised.value)
