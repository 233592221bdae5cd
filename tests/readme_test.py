"""What the README and the pages say to run, runs."""

import importlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from lasers_jax.cli import command_line, program
from lasers_jax.cli.main import PROGRAMS
from lasers_jax.errors import InputError
from lasers_jax.experiment import compare, settings
from lasers_jax.priors import vector
from tests import run_snippets

ROOT = pathlib.Path(__file__).parent.parent
PAGES = {
  path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
  for path in (
    *(ROOT / x for x in ('README.md', 'CONTRIBUTING.md')),
    ROOT / 'benchmarks' / 'README.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
  )
}
WITH_CODE = [page for page, text in PAGES.items() if '```python\n' in text]


def blocks(page, language):
  return re.findall(rf'```{language}\n(.*?)```', PAGES[page], re.DOTALL)


def commands(page):
  """The shell commands of a page that are programs: names and their words."""
  for block in blocks(page, 'sh'):
    for line in block.replace('\\\n', ' ').splitlines():
      words = shlex.split(line, comments=True)
      # A command that another one passes on counts as its own.
      for word in words:
        if word.startswith('--command='):
          words = shlex.split(word.partition('=')[2])
      if 'lasers-jax' in words:
        _, name, *rest = words[words.index('lasers-jax') :]
        yield name, rest


COMMANDS = [(page, *found) for page in PAGES for found in commands(page)]


def parsed(name, words, monkeypatch):
  """The flags of a program after it has read the words of a command.

  What it would run is not run.
  """
  found = {}

  def read(main, words=False, resumes=False):
    rest = command_line.parse(sys.argv, words, main.__module__)
    found.update(flags.FLAGS.flag_values_dict(), words=rest[1:])

  monkeypatch.setattr(program, 'run', read)
  monkeypatch.setattr(sys, 'argv', [name, *words])
  was_parsed = flags.FLAGS.is_parsed()
  with flagsaver.flagsaver():
    try:
      importlib.import_module(f'lasers_jax.cli.{name}').run()
    except SystemExit as left:  # of --help
      assert left.code == 0
    finally:
      if not was_parsed:
        flags.FLAGS.unparse_flags()
  return found


@pytest.mark.parametrize(
  'page, name, words',
  COMMANDS,
  ids=[f'{page}: {name} {" ".join(words)}' for page, name, words in COMMANDS],
)
def test_commands_are_those_of_the_programs(page, name, words, monkeypatch):
  given = parsed(name, words, monkeypatch)
  if words == ['--help']:
    return
  if name in ('train', 'compare'):
    assert given['workdir'] or given.get('dry_run')
    config = given['config'].to_dict()
    if given.get('model'):
      config['network'] |= {'pretrained': given['model']}
    if config['network'].get('pretrained'):
      with pytest.raises(InputError, match='/my/.* does not exist'):
        settings.from_config(config)
      return
    settings.from_config(config)
  if name == 'compare':
    rates = given['bits_per_pixel']
    assert compare.plan(config, given['bottlenecks'], rates, 'runs')
  if name == 'sample':
    assert all(map(vector.parse, given['priors']))
  if name == 'evaluate':
    assert given['workdir'] or given['model']


def test_the_pages_show_every_program():
  shown = {name for _, name, words in COMMANDS if words != ['--help']}
  assert shown == set(PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize('page', WITH_CODE)
def test_python_snippets_run(page, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  if page == 'docs/pretrained.md':
    source = ROOT.parent / 'shared' / 'data' / 'pretrained' / 'random'
    if not source.exists():
      pytest.skip(f'{source} is not there')
    for name, place in ('kl', 'sd-vae'), ('taming', 'vqgan'):
      shutil.copytree(source / name, tmp_path / place)
  assert run_snippets.snippets(PAGES[page])
  run_snippets.run(page, PAGES[page])


@pytest.mark.parametrize(
  'target', ['install', 'demo', 'docs', 'test', 'quick', 'lint']
)
def test_make_targets_of_the_pages_exist(target):
  assert any(f'make {target}' in text for text in PAGES.values())
  dry = subprocess.run(
    ['make', '-n', target], cwd=ROOT, capture_output=True, text=True
  )
  assert dry.returncode == 0, dry.stderr
  assert 'up to date' not in dry.stdout


def anchors(path):
  """The anchors of the headings of a page, as Markdown makes them."""
  titles = re.findall(r'^#+ (.*)', path.read_text(encoding='utf-8'), re.M)
  return {re.sub(r'[^\w\- ]', '', x).lower().replace(' ', '-') for x in titles}


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_and_headings_that_exist(page):
  for target in re.findall(r'\]\(([^)\s]+)\)', PAGES[page]):
    if not target.startswith(('http:', 'https:')):
      name, _, anchor = target.partition('#')
      path = (ROOT / page).parent / name if name else ROOT / page
      assert path.is_file(), f'{page}: {target}'
      assert not anchor or anchor in anchors(path), f'{page}: {target}'


def test_the_readme_is_short():
  assert len(PAGES['README.md'].splitlines()) <= 130


@pytest.mark.parametrize(
  'path', sorted((ROOT / 'docs').rglob('*.md')), ids=lambda path: path.stem
)
def test_each_page_is_in_the_navigation(path):
  navigation = (ROOT / 'mkdocs.yml').read_text(encoding='utf-8')
  assert f': {path.relative_to(ROOT / "docs").as_posix()}\n' in navigation


@pytest.mark.parametrize(
  'name', ['evaluate', 'codec', 'export', 'latents', 'sample', 'compare']
)
def test_a_model_of_diffusers_keeps_its_scheme(name, monkeypatch):
  given = parsed(name, ['--model=diffusers:vae'], monkeypatch)
  assert given['model'] == f'diffusers:{os.path.abspath("vae")}'
