"""Only `core/storage.py` knows how a path is opened: read from the sources."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
FILES = sorted((ROOT / 'lasers_jax').rglob('*.py'))
KNOWS = 'core/storage.py', 'core/buckets.py'
# What opens, makes, moves, removes or looks at a file of a disk alone.
DISK = {
  'open', 'io.open', 'os.open', 'os.makedirs', 'os.mkdir', 'os.replace',
  'os.rename', 'os.remove', 'os.unlink', 'os.rmdir', 'os.listdir', 'os.scandir',
  'os.walk', 'os.stat', 'os.path.exists', 'os.path.lexists', 'os.path.isfile',
  'os.path.isdir', 'os.path.getsize', 'glob.glob', 'glob.iglob', 'pathlib.Path',
  'np.fromfile', 'np.memmap',
}  # fmt: skip
ROOMS = 'shutil', 'epath', 'fsspec', 'gcsfs', 's3fs'
# Of NumPy and others: they may take an open file, and no path.
OPENED = {'np.save', 'np.savez', 'np.load', 'safe_open'}
EXCEPT = {
  # Readers of local folders, which say so of addresses.
  'data/': DISK,
  'data/shards.py': {'shutil.copyfileobj'},
  # Python files that are run.
  'cli/config_file.py': {'os.path.exists', 'os.path.isfile', 'os.path.isdir',
                         'glob.glob'},
  # Copies between files that are open; folders that are renamed on a disk.
  'experiment/exported.py': {'shutil.copyfileobj', 'shutil.rmtree',
                             'os.makedirs', 'os.rename', 'os.listdir',
                             'os.path.isdir', 'os.path.lexists', 'safe_open'},
  # The lock of a disk.
  'training/lease.py': {'os.open'},
  # The room that is left on a disk, and what is moved aside there.
  'training/checkpoint.py': {'shutil.disk_usage', 'shutil.rmtree',
                             'os.makedirs', 'os.rename'},
  # The files of devices.
  'core/distributed.py': {'glob.glob'},
  # Of a local copy.
  'pretrained/weights.py': {'pathlib.Path', 'open'},
  'pretrained/pickled.py': {'open', 'os.path.getsize'},
  'pretrained/onnx.py': {'np.memmap'},
  # Of the package itself.
  'experiment/shipped.py': {'os.listdir', 'os.walk'},
}  # fmt: skip


def named(node: ast.expr) -> str:
  """The dotted name of what is called; '' where it has none."""
  if isinstance(node, ast.Name):
    return node.id
  if isinstance(node, ast.Attribute) and named(node.value):
    return f'{named(node.value)}.{node.attr}'
  return ''


def of_disks(source: str) -> set[str]:
  """The calls that take the path of a disk."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Call):
      continue
    name = named(node.func)
    if name in DISK or name.split('.')[0] in ROOMS:
      found.add(name)
    first = node.args[0] if node.args else None
    if name in OPENED and not (
      isinstance(first, ast.Name) and first.id in ('file', 'copy')
    ):
      found.add(name)
  return found


def title(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / 'lasers_jax').as_posix()


@pytest.mark.parametrize('path', FILES, ids=title)
def test_paths_are_opened_by_one_module(path):
  if title(path) in KNOWS:
    pytest.skip('it is the one')
  allowed = {
    name
    for prefix, names in EXCEPT.items()
    if title(path).startswith(prefix)
    for name in names
  }
  assert of_disks(path.read_text()) <= allowed


def test_exceptions_are_needed():
  for prefix, names in EXCEPT.items():
    if prefix != 'data/':
      source = (ROOT / 'lasers_jax' / prefix).read_text()
      assert of_disks(source) >= names - {'safe_open'}, prefix


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    ('open(path)', {'open'}),
    ('with open(x) as y: pass', {'open'}),
    ('os.path.exists(a)', {'os.path.exists'}),
    ('shutil.copy(a, b)', {'shutil.copy'}),
    ('np.savez(path, a=1)', {'np.savez'}),
    ('np.savez(file, a=1)', set()),
    ("np.load('x.npz')", {'np.load'}),
    ('Image.open(file)', set()),
    ('storage.exists(a)', set()),
  ],
)
def test_calls_are_found(source, expected):
  assert of_disks(source) == expected
