"""Which way the arrows point: read from the imports, nothing is imported."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LIBRARY = sorted((ROOT / 'lasers_jax').rglob('*.py'))
FILES = [*LIBRARY, *sorted(ROOT.glob('*.py')), *sorted(ROOT.glob('configs/*'))]
FILES += sorted(ROOT.glob('examples/*'))
FILES = [path for path in FILES if path.suffix == '.py']

SCRIPTS = ('train.py', 'evaluate.py', 'compare.py', 'sample.py', 'codec.py')
SCRIPTS += ('export.py', 'train_prior.py')
# The rooms of the library, from the top down; a room may import those below
# it, those of its own floor that stand beside it here, and no other.
FLOORS = (
  ('cli',),
  ('experiment',),
  ('report',),
  ('evaluation',),
  ('codec', 'training'),
  ('degradations',),
  ('inference',),
  ('decoders', 'priors'),
  ('metrics',),
  ('networks', 'pretrained', 'data'),
  ('bottlenecks', 'diffusion'),
  ('coding',),
  ('core',),
  ('errors',),
)
# Of rooms on one floor, who may import whom.
BESIDE = {'pretrained': {'networks'}}
# Modules of the root that stand beside the rooms, on `coding` alone.
ESTIMATOR = 'estimator', 'estimator_file'

CLI = ('lasers_jax/cli/',)
# Packages that few may know: where files with such a prefix alone import them.
KNOWN_ONLY_BY = {
  # Grain's worker processes read absl's flags, so the pipeline sees to it that
  # they are parsed where no program did so; it defines and reads none.
  'absl': (*CLI, 'lasers_jax/data/workers.py'),
  'ml_collections': (*CLI, 'configs/', 'lasers_jax/experiment/'),
  'tensorflow_datasets': ('lasers_jax/data/',),
  'grain': ('lasers_jax/data/',),
  'orbax': ('lasers_jax/training/checkpoint.py',),
  'clu': ('lasers_jax/training/monitor.py',),
  'tensorflow': ('lasers_jax/training/monitor.py',),
  # `import lasers_jax` is not to wait for it.
  'sklearn': (
    'lasers_jax/estimator.py',
    'lasers_jax/priors/vector/gmm.py',
    'examples/',
  ),
  'lasers_jax.cli': (*CLI, *SCRIPTS),
  'matplotlib': (
    'lasers_jax/report/charts.py',
    'lasers_jax/report/comparison.py',
    'lasers_jax/report/rate_distortion_curve.py',
  ),
  'jinja2': ('lasers_jax/report/document.py',),
  'constriction': ('lasers_jax/codec/coder.py',),
  'configs': (),
  'examples': (),
  'tests': (),
}


def is_module(name: str) -> bool:
  path = ROOT.joinpath(*name.split('.'))
  return path.is_dir() or path.with_suffix('.py').is_file()


def imports(source: str) -> set[str]:
  """The modules that a file imports, at the top or inside a function."""
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, 'relative imports hide where an arrow points'
      inside = {f'{node.module}.{alias.name}' for alias in node.names}
      modules = {name for name in inside if is_module(name)}
      # `from package import Name` is of the package itself.
      names |= modules | ({node.module} if modules != inside else set())
  return names


def is_within(name: str, package: str) -> bool:
  return name == package or name.startswith(package + '.')


def title(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize('path', FILES, ids=title)
def test_packages_are_known_only_where_they_should_be(path):
  for name in imports(path.read_text()):
    for package, known_by in KNOWN_ONLY_BY.items():
      if is_within(name, package):
        assert title(path).startswith(tuple(known_by)), name


def room_of(name: str) -> str:
  """The room (or module of the root) of a module lasers_jax.ROOM..."""
  return name.split('.')[1] if '.' in name else ''


@pytest.mark.parametrize('path', LIBRARY, ids=title)
def test_arrows_point_down(path):
  room = path.relative_to(ROOT / 'lasers_jax').with_suffix('').parts[0]
  if room in ('__init__', *ESTIMATOR):
    pytest.skip('in no room')
  floor = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
  below = {x for rooms in FLOORS[floor + 1 :] for x in rooms}
  for name in imports(path.read_text()):
    if is_within(name, 'lasers_jax'):
      assert room_of(name) in below | {room} | BESIDE.get(room, set()), name


def test_every_room_has_a_floor():
  rooms = {p.name for p in (ROOT / 'lasers_jax').iterdir() if p.is_dir()}
  rooms |= {p.stem for p in (ROOT / 'lasers_jax').glob('*.py')}
  rooms -= {'__init__', '__pycache__', *ESTIMATOR}
  rooms -= {'models'}  # arrays, no code
  assert rooms == {x for rooms in FLOORS for x in rooms}


def test_no_file_imports_itself_in_a_circle():
  names = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts): path
    for path in LIBRARY
    if path.name != '__init__.py'
  }
  graph = {
    name: {x for x in imports(path.read_text()) if x in names}
    for name, path in names.items()
  }
  while leaves := {name for name, to in graph.items() if not to}:
    graph = {k: to - leaves for k, to in graph.items() if k not in leaves}
  assert not graph


def test_coding_imports_jax_and_nothing_else():
  allowed = {'jax', 'numpy', 'lasers_jax', *sys.stdlib_module_names}
  for path in (ROOT / 'lasers_jax/coding').glob('*.py'):
    assert {x.split('.')[0] for x in imports(path.read_text())} <= allowed


def test_only_the_autoencoder_knows_bottlenecks_among_networks():
  for path in (ROOT / 'lasers_jax/networks').glob('*.py'):
    knows = any(
      is_within(x, 'lasers_jax.bottlenecks') for x in imports(path.read_text())
    )
    assert knows == (path.name == 'autoencoder.py')


def test_the_estimator_stands_on_coding_alone():
  names = imports((ROOT / 'lasers_jax/estimator.py').read_text())
  assert {x for x in names if is_within(x, 'lasers_jax')} == {
    'lasers_jax.coding',
    'lasers_jax.errors',
    'lasers_jax.estimator_file',
    'lasers_jax.core.storage',
  }


def test_files_are_short():
  lengths = {title(path): len(path.read_text().splitlines()) for path in FILES}
  assert {name: n for name, n in lengths.items() if n > 400} == {}


@pytest.mark.parametrize(
  'source, expected',
  [
    ('import jax.numpy as jnp', {'jax.numpy'}),
    ('from lasers_jax import coding', {'lasers_jax.coding'}),
    ('from lasers_jax.errors import InputError', {'lasers_jax.errors'}),
    (
      'from lasers_jax.networks.autoencoder import Autoencoder',
      {'lasers_jax.networks.autoencoder'},
    ),
    ('def f():\n  from absl import app, flags', {'absl'}),
  ],
)
def test_imports_are_read(source, expected):
  assert imports(source) == expected
