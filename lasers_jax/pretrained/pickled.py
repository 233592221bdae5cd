"""What torch.save writes, read without PyTorch, and without running any of it.

A pickle names classes and functions, which Python would import and call. Here
it can call what makes dictionaries and describes tensors. Every other name
stands for an object that does nothing.
"""

import io
import itertools
import logging
import math
import os
import pathlib
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lasers_jax.errors import InputError, shown

# Given the names of a file, gives those to read.
Choose = Callable[[Collection[str]], Iterable[str]]
LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # a number, pickled
# Bytes of a pickle: those of checkpoints have a tenth. What Python makes of one
# can be two hundred times as large.
_LONGEST = 2**22
# Tuples of a pickle: Python computes the hash of one within 128,000 others by a
# recursion that ends the process. A tensor has four.
_MOST_TUPLES = 60_000
# Arrays may be so many times as large as their file, whose tensors can overlap.
_REPEATS = 4
_LONGEST_SIDE = 2**40
_NESTED = 'state_dict', 'model', 'ema'
# Which numbers the storages of PyTorch hold.
_STORAGES = {
  'HalfStorage': 'float16',
  'BFloat16Storage': 'bfloat16',
  'FloatStorage': 'float32',
  'DoubleStorage': 'float64',
  'BoolStorage': 'bool',
  'ByteStorage': 'uint8',
  'CharStorage': 'int8',
  'ShortStorage': 'int16',
  'IntStorage': 'int32',
  'LongStorage': 'int64',
  'ComplexFloatStorage': 'complex64',
  'ComplexDoubleStorage': 'complex128',
  'UntypedStorage': 'uint8',
}
# Those of untyped storages, by the name that PyTorch and NumPy give them.
_OF_UNTYPED = 'float8_e4m3fn', 'float8_e5m2', 'uint16', 'uint32', 'uint64'


class _Storage(NamedTuple):
  key: str
  dtype: Any


class _Tensor(NamedTuple):
  """What a file says of a tensor; counted in elements, not in bytes."""

  storage: _Storage
  dtype: np.dtype
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  @property
  def bytes(self) -> int:
    return math.prod(self.size) * self.dtype.itemsize


class _Inert:
  """Stands for a class or function that is not imported, and for its results.

  Whatever a pickle does with it has no effect.
  """

  __slots__ = ()

  def __new__(cls, *args, **kwargs):
    del args, kwargs
    return object.__new__(cls)

  def __init__(self, *args, **kwargs):
    del args, kwargs

  def _ignore(self, *args):
    del args

  def __call__(self, *args, **kwargs):
    del args, kwargs
    return self

  __setstate__ = __setitem__ = append = extend = add = _ignore


class _Dict(dict):
  """A dictionary without the attributes that a pickle would give it."""

  __slots__ = ()

  def __setstate__(self, state):
    del state


class _Call:
  """A function that a pickle may call, and can change in no way."""

  __slots__ = ('_act',)

  def __init__(self, act: Callable):
    self._act = act

  def __call__(self, *args):
    return self._act(*args)

  def __setstate__(self, state):
    del state


class _Unpickler(pickle.Unpickler):
  """Loads tensors as `_Tensor`, and what is neither theirs nor plain as inert.

  Attributes:
    unknown: the names that became inert, in order.
  """

  def __init__(self, data: io.BytesIO):
    super().__init__(data)
    self._data = data
    self.unknown: list[str] = []
    self.dtypes: dict[str, Any] = {}  # of the storages, by key
    self._items = 0
    self._calls = {
      ('collections', 'OrderedDict'): _Call(self._dict),
      ('torch._utils', '_rebuild_tensor_v3'): _Call(_tensor_of_untyped),
      ('torch._utils', '_rebuild_parameter'): _Call(_parameter),
      ('torch._utils', '_rebuild_parameter_with_state'): _Call(_parameter),
    }
    # The second is of PyTorch before 0.4, as torchvision's VGG16 still is.
    for name in '_rebuild_tensor_v2', '_rebuild_tensor':
      self._calls['torch._utils', name] = _Call(_tensor)

  def load(self):
    start, tuples = self._data.tell(), 0
    for code, argument, _ in pickletools.genops(self._data):
      tuples += code.name.startswith(('TUPLE', 'FROZENSET'))
      # Python makes room for all numbers of objects up to this.
      if code.name.endswith('PUT') and argument > self._data.tell():
        raise pickle.UnpicklingError('an object without its number')
    if tuples > _MOST_TUPLES:
      raise pickle.UnpicklingError('too many tuples')
    self._data.seek(start)
    return super().load()

  def find_class(self, module, name):
    if (module, name) in self._calls:
      return self._calls[module, name]
    numbers = name in _STORAGES or name in _OF_UNTYPED
    if numbers and module in ('torch', 'torch.cuda', 'torch.storage'):
      return name
    self.unknown.append(f'{module}.{name}')
    return _Inert

  def persistent_load(self, pid):
    if pid[0] != 'storage':  # a class, with its source
      return _Inert
    _, storage, key, _, _, *view = pid
    if any(view) or not isinstance(key, str):
      raise pickle.UnpicklingError('a storage of another kind')
    if storage not in _STORAGES:
      return _Inert
    self.dtypes[key] = jnp.dtype(_STORAGES[storage])
    return _Storage(key, self.dtypes[key])

  def _dict(self, items=()):
    # An entry may be given once: copies of copies would fill the memory.
    self._items += len(items)
    if self._items > _LONGEST:
      raise pickle.UnpicklingError('too many entries')
    return _Dict(items)


def _tensor(storage, offset, size, stride, *_, dtype=None):
  if not isinstance(storage, _Storage):
    return _Inert()
  size, stride = tuple(size), tuple(stride)
  for x in (offset, *size, *stride):
    if type(x) is not int or not 0 <= x <= _LONGEST_SIDE:
      raise pickle.UnpicklingError('a tensor without sides')
  return _Tensor(storage, dtype or storage.dtype, offset, size, stride)


def _tensor_of_untyped(storage, offset, size, stride, *more):
  if more[2] not in _OF_UNTYPED:
    return _Inert()
  return _tensor(storage, offset, size, stride, dtype=jnp.dtype(more[2]))


def _parameter(tensor, *_):
  return tensor


def read_torch_zip(file: pathlib.Path, choose: Choose) -> dict[str, np.ndarray]:
  """Reads what torch.save writes since PyTorch 1.6: names -> arrays.

  Raises:
    InputError: it holds no state dict, or is compressed. Any other exception
      says that it is damaged.
  """
  with zipfile.ZipFile(file) as archive:
    entries, size = archive.infolist(), os.path.getsize(file)
    if any(x.compress_type != zipfile.ZIP_STORED for x in entries):
      raise InputError(f'{file} is compressed, as torch.save leaves no file')
    # Python makes room for what an entry claims to hold.
    if any(max(x.compress_size, x.file_size) > size for x in entries):
      raise zipfile.BadZipFile('an entry that is longer than the file')
    (index,) = (n for n in archive.namelist() if n.endswith('/data.pkl'))
    if archive.getinfo(index).file_size > _LONGEST:
      raise pickle.UnpicklingError('too long')
    unpickler = _Unpickler(io.BytesIO(archive.read(index)))
    tensors = _chosen(_tensors(unpickler, unpickler.load(), file), choose)
    folder = index.removesuffix('data.pkl') + 'data/'
    return _arrays(tensors, lambda key: archive.read(folder + key), file)


def read_torch_legacy(
  file: pathlib.Path, choose: Choose
) -> dict[str, np.ndarray]:
  """Reads what PyTorch saved before 1.6: five pickles, then the storages."""
  with open(file, 'rb') as stream:
    head = io.BytesIO(stream.read(_LONGEST))
    for _ in range(3):  # the magic number, the version and the machine
      _Unpickler(head).load()
    unpickler = _Unpickler(head)
    tensors = _chosen(_tensors(unpickler, unpickler.load(), file), choose)
    wanted = {tensor.storage.key for tensor in tensors.values()}
    keys = _Unpickler(head).load()
    stream.seek(head.tell())
    left, data = os.path.getsize(file) - head.tell(), {}
    for key in keys:
      count = int.from_bytes(stream.read(8), 'little')
      length = count * unpickler.dtypes[key].itemsize
      left -= 8 + length
      if left < 0:
        raise EOFError('a storage goes on after the end')
      if key in wanted:
        data[key] = stream.read(length)
      else:
        stream.seek(length, os.SEEK_CUR)
  return _arrays(tensors, data.__getitem__, file)


def _tensors(
  unpickler: _Unpickler, found: Any, file: pathlib.Path
) -> dict[str, _Tensor]:
  """Returns the tensors of a file, or of the dictionary in it that has some."""
  if tensors := _tensors_in(found):
    return tensors
  entries = found.items() if isinstance(found, dict) else ()
  nested = {
    name: inside
    for name, value in entries
    if isinstance(name, str) and (inside := _tensors_in(value))
  }
  chosen = [x for x in _NESTED if x in nested] or list(nested)
  if not chosen:
    asked = unpickler.unknown[:1]
    raise InputError(
      f'{file} holds no state dict'
      + (f' (it asks for {shown(asked[0])}, which is refused)' if asked else '')
      + ': save model.state_dict()'
    )
  if chosen[0] not in _NESTED and len(chosen) > 1:
    raise InputError(
      f'{file} holds several state dicts, {", ".join(map(shown, chosen[:4]))}: '
      'save one of them by itself'
    )
  logging.info('%s: the arrays are those of its entry %r', file, chosen[0])
  return nested[chosen[0]]


def _chosen(tensors: dict[str, _Tensor], choose: Choose) -> dict[str, _Tensor]:
  return {name: tensors[name] for name in choose(tensors)}


def _tensors_in(found: Any) -> dict[str, _Tensor]:
  """Returns the entries of a dictionary that are tensors."""
  if not isinstance(found, dict):
    return {}
  return {
    name: value
    for name, value in found.items()
    if isinstance(name, str) and isinstance(value, _Tensor)
  }


def _arrays(
  tensors: dict[str, _Tensor],
  storage: Callable[[str], bytes],
  file: pathlib.Path,
) -> dict[str, np.ndarray]:
  """Reads the tensors of a file; `storage` gives the data of a key."""
  size = os.path.getsize(file)
  total = sum(tensor.bytes for tensor in tensors.values())
  if total > _REPEATS * size + 2**20:
    raise InputError(
      f'{file} of {size} bytes asks for arrays of {total}, which is refused'
    )
  key = lambda name: tensors[name].storage.key  # noqa: E731
  found = {}
  for of, names in itertools.groupby(sorted(tensors, key=key), key):
    data = storage(of)
    found |= {name: _array(tensors[name], data) for name in names}
  return {name: found[name] for name in tensors}


def _array(tensor: _Tensor, data: bytes) -> np.ndarray:
  # This constructor holds offset and strides within the buffer.
  itemsize = tensor.dtype.itemsize
  strides = [step * itemsize for step in tensor.stride]
  offset = tensor.offset * itemsize
  view = np.ndarray(tensor.size, tensor.dtype, data, offset, strides)
  return np.array(view, order='C')
