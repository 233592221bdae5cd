"""The arrays of a file of ONNX, read without what runs such files.

A file is a message of protobuf: fields of a number and a value, some of which
are messages again. The numbers are those of onnx.proto.
"""

import itertools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lasers_jax.errors import InputError
from lasers_jax.pretrained.pickled import Choose

START = b'\x08'  # the version, which comes first
_GRAPH, _INITIALIZER = 7, 5  # of a model, and of its graph
_DIMS, _TYPE, _NAME, _NUMBERS, _PLACE = 1, 2, 8, 9, 14  # of an array
_TYPES = {1: 'float32', 10: 'float16', 11: 'float64', 16: 'bfloat16'}
_MOST, _MOST_SIDES, _LONGEST = 2**16, 64, 10  # arrays; sides; bytes of a number
_LENGTHS = {1: 8, 5: 4}  # bytes of a value, by its kind


class _Array(NamedTuple):
  """An array, as a file describes it."""

  name: str
  dtype: str
  shape: tuple[int, ...]
  numbers: memoryview


def read_onnx(file: pathlib.Path, choose: Choose) -> dict[str, np.ndarray]:
  """Reads the floating-point arrays of a graph: names -> arrays.

  Raises:
    InputError: it holds no arrays, or names another file for them. Any other
      exception says that it is damaged.
  """
  data = memoryview(np.memmap(file, np.uint8, 'r'))
  graphs = _messages(data, _GRAPH)
  every = (x for graph in graphs for x in _messages(graph, _INITIALIZER))
  messages = list(itertools.islice(every, _MOST + 1))
  if len(messages) > _MOST:
    raise ValueError('too many arrays')
  arrays = (_array(message, file) for message in messages)
  found = {array.name: array for array in arrays if array is not None}
  if not found:
    raise InputError(f'{file} is no file of weights: ONNX without arrays')
  return {name: _numbers(found[name]) for name in choose(found)}


def _array(message: memoryview, file: pathlib.Path) -> _Array | None:
  """Returns what an initializer says; None where it has no weights."""
  shape, of = [], {}
  for number, value in _fields(message):
    if number == _DIMS:
      # One by one, or all together.
      shape += [value] if isinstance(value, int) else _integers(value)
      if len(shape) > _MOST_SIDES:
        raise ValueError('too many sides')
    elif number in (_TYPE, _NAME, _NUMBERS, _PLACE):
      of[number] = value
  if of.get(_PLACE):
    raise InputError(f'{file} keeps its arrays in other files: save them in it')
  if of.get(_TYPE) not in _TYPES or _NUMBERS not in of:
    return None
  name = str(of[_NAME], 'utf-8')
  return _Array(name, _TYPES[of[_TYPE]], tuple(shape), of[_NUMBERS])


def _numbers(array: _Array) -> np.ndarray:
  found = np.frombuffer(array.numbers, jnp.dtype(array.dtype))
  return found.reshape(array.shape).copy()


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
  """Yields the fields of a number that are messages."""
  for number, value in _fields(data):
    if number == wanted and not isinstance(value, int):
      yield value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
  """Yields number and value of each field of a message."""
  at = 0
  while at < len(data):
    key, at = _integer(data, at)
    kind, length = key & 7, 0
    if kind in (0, 2):
      length, at = _integer(data, at)
    if kind == 0:
      yield key >> 3, length
      continue
    length = length if kind == 2 else _LENGTHS[kind]
    if length > len(data) - at:
      raise EOFError('a field goes on after the end')
    yield key >> 3, data[at : at + length]
    at += length


def _integers(data: memoryview) -> list[int]:
  found, at = [], 0
  while at < len(data) and len(found) <= _MOST_SIDES:
    value, at = _integer(data, at)
    found.append(value)
  return found


def _integer(data: memoryview, at: int) -> tuple[int, int]:
  """Reads an integer, seven bits a byte; returns it and where it ends."""
  value = 0
  for i, byte in enumerate(data[at : at + _LONGEST]):
    value |= (byte & 0x7F) << 7 * i
    if byte < 0x80:
      return value, at + i + 1
  raise ValueError('an integer without end')
