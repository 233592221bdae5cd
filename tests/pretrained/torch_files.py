"""Files as torch.save writes them, made without PyTorch."""

import io
import pathlib
import pickle
import zipfile

from lasers_jax.pretrained.pickled import LEGACY

STORAGES = {'float16': 'Half', 'float32': 'Float', 'float64': 'Double'}


def pickled(tree, storages):
  """Returns opcodes for nested dicts, texts, numbers and arrays.

  Args:
    tree: bytes in it are opcodes already.
    storages: a list that gets the bytes of the arrays.
  """
  if isinstance(tree, bytes):
    return tree
  if isinstance(tree, dict):
    items = [pickled(x, storages) for pair in tree.items() for x in pair]
    return b'}(' + b''.join(items) + b'u'
  if isinstance(tree, str):
    return b'X' + len(tree.encode()).to_bytes(4, 'little') + tree.encode()
  if isinstance(tree, int):
    return b'J' + tree.to_bytes(4, 'little')
  return tensor(tree, storages)


def tensor(array, storages):
  """Returns opcodes that describe an array, which may be a view of its base."""
  held = array if array.base is None else array.base
  storages.append(held.tobytes())

  def sides(numbers):
    return b'(' + b''.join(pickled(int(x), []) for x in numbers) + b't'

  storage = b''.join(
    [
      pickled('storage', []),
      f'ctorch\n{STORAGES[array.dtype.name]}Storage\n'.encode(),
      pickled(str(len(storages) - 1), []),
      pickled('cpu', []),
      pickled(held.size, []),
    ]
  )
  steps = [step // array.itemsize for step in array.strides]
  return (
    b'ctorch._utils\n_rebuild_tensor_v2\n(('
    + storage
    + b'tQK\x00'
    + sides(array.shape)
    + sides(steps)
    + b'\x89ccollections\nOrderedDict\n)RtR'
  )


def as_zip(tree, **options):
  """Returns the bytes of a zip file, as PyTorch writes since 1.6."""
  storages = []
  index = b'\x80\x02' + pickled(tree, storages) + b'.'
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', **options) as archive:
    archive.writestr('archive/data.pkl', index)
    for key, data in enumerate(storages):
      archive.writestr(f'archive/data/{key}', data)
  return file.getvalue()


def as_legacy(tree):
  """Returns the bytes of a file as PyTorch wrote before 1.6; no float16."""
  storages = []
  index = b'\x80\x02' + pickled(tree, storages) + b'.'
  head = LEGACY + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + index
  head += pickle.dumps([str(key) for key in range(len(storages))], 2)
  for data in storages:
    head += (len(data) // 4).to_bytes(8, 'little') + data
  return head


class Touch:
  """Makes a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)
