"""The console command: the programs that it knows, and what it refuses."""

import importlib
import sys

import pytest

from lasers_jax.cli import main as console


@pytest.mark.parametrize('name', console.PROGRAMS)
def test_every_program_runs_and_says_what_it_is_for(name):
  program = importlib.import_module(f'lasers_jax.cli.{name}')
  assert callable(program.run)
  assert program.__doc__


@pytest.mark.parametrize('words', [[], ['--help'], ['-h']])
def test_programs_are_listed(monkeypatch, capsys, words):
  monkeypatch.setattr(console.signals, 'end_without_traceback', lambda: None)
  monkeypatch.setattr(sys, 'argv', ['lasers-jax', *words])
  console.main()
  listed = capsys.readouterr().out
  assert all(f'  {name} ' in listed for name in console.PROGRAMS)


def test_an_unknown_program_is_one_line(monkeypatch, capsys):
  monkeypatch.setattr(console.signals, 'end_without_traceback', lambda: None)
  monkeypatch.setattr(sys, 'argv', ['lasers-jax', 'trian'])
  with pytest.raises(SystemExit) as end:
    console.main()
  assert end.value.code == 2
  line = "error: the program is 'trian': did you mean train?\n"
  assert capsys.readouterr().err.startswith(line[:-2])


def test_a_program_is_given_the_rest_of_the_words(monkeypatch):
  seen = []
  monkeypatch.setattr(console.signals, 'end_without_traceback', lambda: None)
  monkeypatch.setattr(sys, 'argv', ['bin/lasers-jax', 'train', '--workdir=x'])
  from lasers_jax.cli import train

  monkeypatch.setattr(train, 'run', lambda: seen.extend(sys.argv))
  console.main()
  assert seen == ['bin/lasers-jax train', '--workdir=x']
