import io
import subprocess
import sys
import types

import pytest

from lasers_jax import command_line, scripts
from lasers_jax.errors import InputError, optional


def test_the_commit_of_a_checkout_is_known():
  known = scripts.commit()
  folder = scripts.os.path.dirname(scripts.__file__)
  words = ['git', 'rev-parse', '--short=12', 'HEAD']
  head = subprocess.run(words, cwd=folder, capture_output=True, text=True)
  if head.returncode:
    pytest.skip('not a checkout')
  assert known.removesuffix('-dirty') == head.stdout.strip()


@pytest.mark.parametrize(
  'error',
  [
    FileNotFoundError('git'),
    PermissionError('git'),
    subprocess.TimeoutExpired('git', 10),
    subprocess.CalledProcessError(128, 'git'),
    OSError(12, 'Cannot allocate memory'),
  ],
)
def test_no_commit_where_git_cannot_tell(monkeypatch, error):
  def run(*_, **__):
    raise error

  monkeypatch.setattr(scripts.subprocess, 'run', run)
  assert scripts.commit() is None


def test_a_package_inside_of_another_checkout_has_no_commit(
  tmp_path, monkeypatch
):
  git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b.c']
  subprocess.run([*git, 'init', '-q'], cwd=tmp_path, check=True)
  words = [*git, 'commit', '-q', '--allow-empty', '-m', 'another project']
  subprocess.run(words, cwd=tmp_path, check=True)
  monkeypatch.setattr(scripts, '__file__', str(tmp_path / 'scripts.py'))
  (tmp_path / 'scripts.py').write_text('')
  assert scripts.commit() is None


def test_variables_of_git_do_not_name_another_checkout(monkeypatch):
  before = scripts.commit()
  monkeypatch.setenv('GIT_DIR', '/no/such')
  assert scripts.commit() == before


def test_letters_that_a_terminal_lacks_are_escaped(monkeypatch):
  raw = io.BytesIO()
  stream = io.TextIOWrapper(raw, encoding='ascii', write_through=True)
  monkeypatch.setattr(sys, 'stdout', stream)
  monkeypatch.setattr(sys, 'stderr', types.SimpleNamespace())  # no file
  with pytest.raises(UnicodeEncodeError):
    print('\u00d7')
  scripts._survive_any_locale()
  print('8 \u00d7 \udcff')
  assert raw.getvalue() == b'8 \\xd7 \\udcff\n'


def test_what_is_optional_fails_in_a_line(log):
  with optional('picture'):
    raise ValueError('two\nlines')
  with optional('report'):
    raise KeyError
  assert log == ['no picture: two lines', 'no report: KeyError']
  with pytest.raises(KeyboardInterrupt), optional('picture'):
    raise KeyboardInterrupt


def test_flags_of_paths_know_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  parse = command_line.Path().parse
  assert parse('~/a') == str(tmp_path / 'a')
  assert parse('/a/../b') == '/b'
  with pytest.raises(InputError, match='gs://b is an address'):
    parse('gs://b')
