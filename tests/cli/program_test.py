import io
import sys
import types

import pytest

from lasers_jax.cli import command_line, program
from lasers_jax.errors import InputError, optional


def test_letters_that_a_terminal_lacks_are_escaped(monkeypatch):
  raw = io.BytesIO()
  stream = io.TextIOWrapper(raw, encoding='ascii', write_through=True)
  monkeypatch.setattr(sys, 'stdout', stream)
  monkeypatch.setattr(sys, 'stderr', types.SimpleNamespace())  # no file
  with pytest.raises(UnicodeEncodeError):
    print('\u00d7')
  program._survive_any_locale()
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
  assert parse('gs://b/a/../c/') == 'gs://b/c'
  with pytest.raises(InputError, match='http://b is an address'):
    parse('http://b')
