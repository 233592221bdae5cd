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

# What each room of the library may import of the library.
ROOMS = {
  'coding': {'coding'},
  'bottlenecks': {'bottlenecks', 'coding', 'errors', 'ranges'},
  'networks': {'networks', 'bottlenecks.base', 'coding', 'errors', 'ranges'},
  'diffusion': {'diffusion', 'networks', 'coding', 'errors', 'ranges'},
  'sampling': {
    'sampling',
    'networks',
    'coding',
    'errors',
    'files',
    'ranges',
    'arrays',
  },
  'codec': {
    'codec',
    'bottlenecks',
    'coding',
    'errors',
    'files',
    'ranges',
    'arrays',
  },
  'data': {'data', 'errors', 'files', 'padding', 'ranges', 'signals'},
  'training': {
    'training',
    'bottlenecks',
    'networks',
    'diffusion',
    'sampling',
    'codec',
    'coding',
    'arrays',
    'errors',
    'files',
    'ranges',
    'signals',
  },
}
# Measurement shares the mesh and the pixels' scale with training.
ROOMS['evaluation'] = ROOMS['training'] | {'evaluation', 'padding'}

SCRIPTS = (
  'train.py',
  'evaluate.py',
  'compare.py',
  'sample.py',
  'codec.py',
  'lasers_jax/scripts.py',
  'lasers_jax/command_line.py',
  'lasers_jax/config_file.py',
  'configs/',
)
# Packages that few may know: where files with such a prefix alone import them.
KNOWN_ONLY_BY = {
  # Grain's worker processes read absl's flags, so the pipeline sees to it that
  # they are parsed where no script did so; it defines and reads none.
  'absl': (*SCRIPTS, 'lasers_jax/data/workers.py'),
  'ml_collections': SCRIPTS,
  'tensorflow_datasets': ('lasers_jax/data/',),
  'grain': ('lasers_jax/data/',),
  'orbax': ('lasers_jax/training/checkpoint.py',),
  'clu': ('lasers_jax/training/monitor.py',),
  'tensorflow': ('lasers_jax/training/monitor.py',),
  # `import lasers_jax` is not to wait for it.
  'sklearn': (
    'lasers_jax/estimator.py',
    'lasers_jax/sampling/gmm.py',
    'examples/',
  ),
  'lasers_jax.data': (*SCRIPTS, 'lasers_jax/settings.py', 'lasers_jax/data/'),
  'lasers_jax.settings': SCRIPTS,
  'lasers_jax.scripts': SCRIPTS,
  'train': ('compare.py',),
  'evaluate': ('compare.py', 'sample.py', 'codec.py'),
  'configs': ('configs/', 'compare.py'),
  'matplotlib': (
    'lasers_jax/evaluation/charts.py',
    'lasers_jax/evaluation/comparison.py',
    'lasers_jax/evaluation/rate_distortion.py',
  ),
  'jinja2': ('lasers_jax/evaluation/report.py',),
  'constriction': ('lasers_jax/codec/coder.py',),
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


@pytest.mark.parametrize('path', LIBRARY, ids=title)
def test_arrows_point_one_way(path):
  room = path.relative_to(ROOT / 'lasers_jax').parts[0]
  if room.endswith('.py'):
    pytest.skip('not in a room')
  for name in imports(path.read_text()):
    if is_within(name, 'lasers_jax'):
      allowed = [f'lasers_jax.{x}' for x in ROOMS[room]]
      assert any(is_within(name, x) for x in allowed), name


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
    'lasers_jax.files',
  }


@pytest.mark.parametrize(
  'name', ['errors', 'files', 'padding', 'ranges', 'signals']
)
def test_what_all_rooms_may_import_imports_no_room(name):
  for module in imports((ROOT / f'lasers_jax/{name}.py').read_text()):
    if module != 'lasers_jax.errors':
      assert module.split('.')[0] in {'numpy', *sys.stdlib_module_names}


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
