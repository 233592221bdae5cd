"""What the README says to run, runs."""

import ast
import importlib
import pathlib
import re
import shlex
import subprocess

import pytest

from lasers_jax.experiment import settings

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()


def blocks(language):
  return re.findall(rf'```{language}\n(.*?)```', README, re.DOTALL)


def commands():
  """The shell commands of the README, a list of words each."""
  for block in blocks('sh'):
    for line in block.replace('\\\n', ' ').splitlines():
      words = shlex.split(line, comments=True)
      if len(words) == 1:
        continue
      # A command that another one passes on counts as its own.
      for word in words:
        if word.startswith('--command='):
          words = shlex.split(word.partition('=')[2].partition('&& ')[2])
      yield words


def test_the_python_example_runs():
  (code,) = blocks('python')
  names = {}
  exec(compile(code, 'README.md', 'exec'), names)
  assert names['code'].atoms.shape == (1000, 5)
  assert float((names['error'] ** 2).mean()) < 0.1


@pytest.mark.parametrize(
  'words',
  [w for w in commands() if any(x.startswith('--config=') for x in w)],
  ids=' '.join,
)
def test_training_commands_name_configs_and_keys_that_exist(words):
  name, _, argument = next(
    w.partition('=')[2] for w in words if w.startswith('--config=')
  ).partition(':')
  module = importlib.import_module(name.removesuffix('.py').replace('/', '.'))
  config = module.get_config(*filter(None, [argument]))
  for word in words:
    if word.startswith('--config.'):
      path, _, value = word.removeprefix('--config.').partition('=')
      *sections, key = path.split('.')
      section = config
      for part in sections:
        section = section[part]
      assert key in section, f'{word} sets nothing'
      if not isinstance(section[key], str):
        value = ast.literal_eval(value)
      section[key] = value
  settings.from_config(config.to_dict())
  assert any(w.startswith('--workdir=') for w in words)


@pytest.mark.parametrize(
  'script, least',
  [
    ('evaluate.py', {'workdir', 'S', 'data'}),
    ('compare.py', {'workdir', 'config', 'bottlenecks', 'metrics'}),
    ('sample.py', {'workdir', 'priors'}),
    ('codec.py', {'model'}),
  ],
)
def test_commands_use_flags_that_exist(script, least):
  cli = ROOT / 'lasers_jax' / 'cli'
  source = (cli / script).read_text()
  for shared in 'program', 'command_line':
    source += (cli / f'{shared}.py').read_text()
  if 'evaluate.define_metrics' in source:
    source += (cli / 'evaluate.py').read_text()
  flags = set(re.findall(r"DEFINE\w*\(\s*(?:[^',]+,\s*)?'(\w+)'", source))
  used = {
    word.removeprefix('--').partition('=')[0]
    for words in commands()
    if script in words
    for word in words
    if word.startswith('--') and not word.startswith('--config.')
  }
  assert least <= used <= flags


@pytest.mark.parametrize('target', ['install', 'demo', 'test'])
def test_make_targets_of_the_readme_exist(target):
  assert f'make {target}' in README
  dry = subprocess.run(
    ['make', '-n', target], cwd=ROOT, capture_output=True, text=True
  )
  assert dry.returncode == 0, dry.stderr


def test_the_pictures_of_the_readme_exist():
  found = re.findall(r'!\[[^\]]*\]\(([^)]+)\)', README)
  assert found
  for path in found:
    assert (ROOT / path).is_file(), path
