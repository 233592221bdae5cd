"""Names of data sets: their schemes, and the options of each."""

import pytest

from lasers_jax.core.ranges import Count
from lasers_jax.data import SOURCES, opening, register_source
from lasers_jax.data.opening import open_source
from lasers_jax.errors import InputError


def _echo(
  rest: str, split: str, workdir: str | None = None, *, side: Count, word=''
):
  return rest, split, workdir, side, word


@pytest.fixture
def echo(monkeypatch):
  monkeypatch.setitem(SOURCES, 'echo', None)  # which is undone at the end
  register_source('echo', _echo)


@pytest.mark.parametrize(
  'name, rest',
  [('echo', ''), ('echo:', ''), ('echo:a', 'a'), ('echo:/a:b', '/a:b')],
)
def test_a_scheme_is_what_stands_before_the_first_colon(echo, name, rest):
  found = open_source(name, 'train', 'runs/x', {'side': 3, 'word': 'w'})
  assert found == (rest, 'train', 'runs/x', 3, 'w')


@pytest.mark.parametrize(
  'name', ['mnist', 'tfds:mnist', 'echo/a', 'mnist:3.*.*']
)
def test_what_has_no_scheme_is_a_name_of_tfds(monkeypatch, echo, name):
  tfds = lambda rest, split, workdir: rest  # noqa: E731
  monkeypatch.setitem(opening.SOURCES, 'tfds', tfds)
  assert open_source(name, 'train') == name.removeprefix('tfds:')


@pytest.mark.parametrize(
  'options, line',
  [
    (
      {'side': 3, 'wrd': 'w'},
      "the data 'echo' has no option data.options.wrd; did you mean "
      'data.options.word?',
    ),
    (
      {'side': 3, 'zzz': 1},
      "the data 'echo' has no option data.options.zzz; leave it out",
    ),
    (
      {'side': 0},
      'data.options.side is 0: it must be a whole number, at least 1',
    ),
    ({}, "the data 'echo' requires the option data.options.side"),
  ],
)
def test_options_are_those_of_the_source(echo, options, line):
  with pytest.raises(InputError) as error:
    open_source('echo:a', 'train', options=options)
  assert str(error.value) == line


def test_a_scheme_is_a_word():
  with pytest.raises(ValueError, match="letters, digits and _, not 'a:b'"):
    register_source('a:b', _echo)


@pytest.mark.parametrize('name', ['phtos', 'foldr:/x'])
def test_a_scheme_that_is_nearly_right_is_named(name, monkeypatch, tmp_path):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  near = {'p': 'photos', 'f': 'folder'}[name[0]]
  with pytest.raises(InputError, match=rf"'{name}'.*did you mean {near}\?"):
    open_source(name, 'train')
