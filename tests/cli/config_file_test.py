"""What a config file does wrong is told on one line."""

import os

import pytest

from lasers_jax.cli import config_file
from lasers_jax.errors import InputError

GOOD = """
from ml_collections import ConfigDict

def get_config(argument='none'):
  return ConfigDict(dict(said=argument))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """The files lie in the working folder, so that their names are short."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


def message(text: str) -> str:
  with pytest.raises(InputError) as error:
    config_file.load(text)
  line = str(error.value)
  assert '\n' not in line
  assert len(line) < 190
  assert 'File "' not in line
  return line


@pytest.mark.parametrize(
  'text, said', [('a.py', 'none'), ('a.py:b', 'b'), ('a.py:b:c', 'b:c')]
)
def test_the_argument_stands_behind_a_colon(folder, text, said):
  (folder / 'a.py').write_text(GOOD)
  assert config_file.load(text).said == said


def test_the_home_folder(folder, monkeypatch):
  monkeypatch.setenv('HOME', str(folder))
  (folder / 'a.py').write_text(GOOD)
  assert config_file.load('~/a.py').said == 'none'


def test_a_file_may_have_a_dataclass(folder):
  (folder / 'a.py').write_text(
    'from __future__ import annotations\nimport dataclasses\n'
    f'@dataclasses.dataclass\nclass A:\n  x: int = 0\n{GOOD}'
  )
  assert config_file.load('a.py').said == 'none'


@pytest.mark.parametrize(
  'source, line',
  [
    ('x = (\n', "line 1: SyntaxError: '(' was never closed"),
    ('x = 1\ny = "\udce9"\n', 'SyntaxError: (unicode error)'),
    ('x = "\0"\n', 'SyntaxError: source code'),
    (
      'import no_such_module\n',
      "line 1: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    ('def f():\n  return 1 / 0\n\nx = f()\n', 'line 2: ZeroDivisionError: '),
    ('import sys\nsys.exit(3)\n', 'line 2: SystemExit: 3'),
    ("def get_config():\n  return {}['x']\n", "line 2: KeyError: 'x'"),
    ('def get_config():\n  assert False\n', 'line 2: AssertionError: '),
    (
      'def get_config():\n  raise ValueError("one\\n" * 100)\n',
      'line 2: ValueError: one one one',
    ),
    (
      'import json\ndef get_config():\n  return json.loads("{")\n',
      'line 3: JSONDecodeError: Expecting property name',
    ),
  ],
)
def test_what_a_file_raises_is_told_with_its_place(folder, source, line):
  (folder / 'a.py').write_bytes(source.encode(errors='surrogateescape'))
  found = message('a.py')
  assert found.startswith('a.py')
  assert line in found


@pytest.mark.parametrize(
  'text, source, line',
  [
    ('a.py', 'x = 1\n', 'a.py has no function get_config'),
    (
      'a.py',
      'def get_config():\n  pass\n',
      'get_config of a.py returned NoneType, no ConfigDict',
    ),
    (
      'a.py',
      'def get_config():\n  return {}\n',
      'get_config of a.py returned dict, no ConfigDict',
    ),
    (
      'a.py:b',
      'def get_config():\n  pass\n',
      'get_config of a.py takes no argument: a.py:b',
    ),
    (
      'a.py',
      'def get_config(x):\n  pass\n',
      'get_config of a.py needs an argument: a.py',
    ),
    (
      'a.py',
      'from lasers_jax.errors import InputError\n'
      'def get_config():\n  raise InputError("mend it")\n',
      'mend it',
    ),
  ],
)
def test_files_that_give_no_config(folder, text, source, line):
  (folder / 'a.py').write_text(source)
  assert message(text) == line


@pytest.mark.parametrize(
  'text, line',
  [
    ('', "the config '' is no file"),
    ('qqq', "the config 'qqq' is no file"),
    ('.', "the config '.' is a folder"),
    ('other/b.py', "the config 'other/b.py' is no file"),
    ('photo.py:vq', "'photo.py' is no file; did you mean configs/photos.py?"),
    ('photo', "'photo' is no file; did you mean configs/photos.py?"),
    ('cifar', "'cifar' is no file; did you mean cifar10?"),
    ('other/colour', 'is no file; did you mean other/colours.py?'),
    ('configs/text.txt', "'configs/text.txt' is no Python file (.py)"),
  ],
)
def test_what_is_no_file(folder, text, line):
  for name in 'configs/photos.py', 'other/colours.py', 'configs/text.txt':
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
  assert message(text).endswith(line)


def test_short_names_are_of_the_configs_that_come_along(folder):
  config = config_file.load('cifar10:vq')
  assert config.bottleneck.name == 'vq'
  assert config.data.name == 'cifar10'
  (folder / 'cifar10').write_text(GOOD)  # what lies here goes first
  assert message('cifar10') == "the config 'cifar10' is no Python file (.py)"


def test_every_field_has_a_default_and_a_type():
  config = config_file.load('photos:scq')
  assert config.seed == 0
  assert config.optimizer.b1 == 0.9
  config.bottleneck.keep = 3  # None before; a flag may set it
  config.data.resize = 64
  with pytest.raises(TypeError):
    config.bottleneck.keep = 'three'
  assert config_file.load('photos:scq').to_dict()['bottleneck']['keep'] is None


def test_a_file_that_cannot_be_read(folder):
  (folder / 'a.py').write_text(GOOD)
  (folder / 'a.py').chmod(0)
  if os.access(folder / 'a.py', os.R_OK):
    pytest.skip('may read everything')
  assert message('a.py').startswith('a.py: PermissionError: ')


def test_a_config_in_a_bucket_is_not_run():
  assert message('gs://b/a.py:c') == (
    'the config gs://b/a.py:c is Python code that is run: copy it to this '
    'machine'
  )
