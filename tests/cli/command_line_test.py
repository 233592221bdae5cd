"""What is mistyped on a command line is told on one line, before anything."""

import os
import sys
import types

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from lasers_jax.cli import command_line, compare, program, sample, train
from lasers_jax.core import ranges
from lasers_jax.errors import InputError
from lasers_jax.experiment import loading

FILE = """
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

def get_config(argument=''):
  config = ConfigDict(dict(steps=3, rate=0.5, word='w', flip=True))
  config.section = ConfigDict(dict(key=1, widths=(1, 2)))
  config.bits = placeholder(int)
  return config
"""

OWN = list(loading.NAMES.items())[:1]  # a model of the package, by its name


@pytest.fixture
def parse(tmp_path, monkeypatch):
  """Parses words after --config=FILE by flags of its own: the flags' values."""
  (tmp_path / 'a.py').write_text(FILE)
  monkeypatch.chdir(tmp_path)

  def run(*words, words_too=False, config='--config=a.py'):
    own = flags.FlagValues()
    monkeypatch.setattr(flags, 'FLAGS', own)
    monkeypatch.setattr(config_flags.config_flags, 'FLAGS', own)
    flags.DEFINE_string('workdir', None, 'Folder.', flag_values=own)
    config_flags.DEFINE_config_file('config', flag_values=own)
    own['config'].parser = command_line._Config()
    for name, parser in {
      'count': command_line.Number(ranges.Count),
      'shares': command_line.Numbers(ranges.Fraction),
      'gaps': command_line.Numbers(ranges.Fraction | None),
      'files': command_line.NamedPaths(),
    }.items():
      help_ = 'A number.'
      flags.DEFINE(parser, name, None, help_, own, module_name=train.__name__)
    argv = ['train.py', *([config] if config else []), *words]
    monkeypatch.setattr(sys, 'argv', argv)
    rest = command_line.parse(argv, words_too, train.__name__)
    return own, rest

  return run


def test_paths_have_names(parse):
  found, _ = parse('--files=a=/x/y,b=c=d')
  assert found.files == {'a': '/x/y', 'b': os.path.abspath('c=d')}
  assert parse('--files=')[0].files == {}


def test_changes_of_keys(parse):
  found, _ = parse('--config.steps=7', '--noconfig.flip', '--config.bits=2')
  config = found.config
  assert isinstance(config, ConfigDict)
  assert config.is_locked
  assert (config.steps, config.flip, config.bits) == (7, False, 2)


def test_numbers(parse):
  found, rest = parse('--count=3', '--shares=0,0.5', 'more', words_too=True)
  assert (found.count, found.shares, rest[1:]) == (3, [0.0, 0.5], ['more'])
  assert parse('--shares=')[0].shares == []
  assert parse('--gaps=,0.5,')[0].gaps == [None, 0.5, None]
  assert parse()[0].count is None


MUST = 'it must be '


@pytest.mark.parametrize(
  'words, line',
  [
    # Values
    (['--config.steps=abc'], f"steps is 'abc': {MUST}a whole number"),
    (['--config.steps=2.5'], f"steps is '2.5': {MUST}a whole number"),
    (['--config.steps='], f"steps is '': {MUST}a whole number"),
    (['--config.bits=x'], f"bits is 'x': {MUST}a whole number"),
    (['--config.rate=None'], f"rate is 'None': {MUST}a finite number"),
    (['--config.flip=maybe'], f"flip is 'maybe': {MUST}True or False"),
    (
      ['--config.section=3'],
      'section must be set key by key: --config.section.KEY=VALUE',
    ),
    (
      ['--config.section', '--count=1'],
      'section must be set key by key: --config.section.KEY=VALUE',
    ),
    (
      [f'--config.steps={"x" * 300}'],
      f"steps is '{'x' * 59}...: {MUST}a whole number",
    ),
    # Keys
    (['--config.step=1'], 'the config has no key step; did you mean steps?'),
    (['--config.qqq=1'], 'the config has no key qqq'),
    (['--config.steps.x=1'], 'the config has no key steps.x'),
    (['--config..steps=1'], 'the config has no key .steps'),
    (
      ['--config.section.kee=1'],
      'the config has no key section.kee; did you mean key?',
    ),
    (['--noconfig.flop'], 'the config has no key flop; did you mean flip?'),
    # Given twice
    (['--config.steps=1', '--config.steps=2'], '--config.steps is given twice'),
    (['--count=1', '--count=1'], '--count is given twice'),
    (['--config=b.py'], '--config is given twice'),
    # Numbers of the programs
    (['--count=0'], f'flag --count=0: {MUST}a whole number, at least 1'),
    (['--count=1.5'], f'flag --count=1.5: {MUST}a whole number, at least 1'),
    (['--files=a'], 'flag --files=a: it must be NAME=PATH, not a'),
    (
      ['--shares=0,2'],
      f'flag --shares=0,2: {MUST}a finite number, at least 0 and at most 1',
    ),
    (
      ['--shares=0,'],
      f'flag --shares=0,: {MUST}a finite number, at least 0 and at most 1',
    ),
    # Others
    (['more'], 'not a flag: more'),
    (['--workdri=x'], "Unknown command line flag 'workdri'. Did you mean: "),
  ],
)
def test_what_cannot_be_used_is_one_line(parse, words, line):
  with pytest.raises(InputError) as error:
    parse(*words)
  found = str(error.value)
  assert found.startswith(line)
  assert len(found) == len(line) or line[-1] == ' '
  assert '\n' not in found


@pytest.mark.parametrize(
  'config, words, line',
  [
    (None, ['--config.steps=1'], '--config=FILE must come before --config.st'),
    (None, ['--config.steps=1', '--config=a.py'], 'Found --config.steps=1 in'),
    ('--config=b.py', [], "the config 'b.py' is no file"),
    ('--config=b.py', ['--config.steps=1'], "the config 'b.py' is no file"),
    ('--config=a.py:b', ['--config.step=1'], 'the config has no key step;'),
  ],
)
def test_configs_that_cannot_be_read(parse, config, words, line):
  with pytest.raises(InputError) as error:
    parse(*words, config=config)
  assert str(error.value).startswith(line)


def test_what_follows_two_dashes_is_no_flag(parse):
  _, rest = parse('--', '--count=1', '--count=1', words_too=True)
  assert rest[1:] == ['--count=1', '--count=1']


@pytest.mark.parametrize('word', ['--help', '-h', '--helpshort', '-?'])
def test_help_shows_the_flags_of_the_program(parse, capsys, word):
  with pytest.raises(SystemExit) as end:
    parse('--config.qqq=1', word)
  assert end.value.code == 0
  shown = capsys.readouterr().out
  for flag in '--workdir: Folder.', '--count: A number.', '--config: ':
    assert flag in shown


@pytest.mark.parametrize(
  'script, name',
  [
    (sample, 'priors'),
    (compare, 'bottlenecks'),
    (compare, 'bits_per_pixel'),
  ],
)
def test_lists_of_nothing_are_refused(monkeypatch, script, name):
  given = dict(config=1, priors=[1], bottlenecks=[1], bits_per_pixel=[1])
  given |= dict(prior=None, model=None)
  given = types.SimpleNamespace(**{**given, name: []})
  monkeypatch.setattr(script, 'flags', types.SimpleNamespace(FLAGS=given))
  workdir = types.SimpleNamespace(value='workdir')
  monkeypatch.setattr(program, 'WORKDIR', workdir)
  with pytest.raises(InputError, match=f'^--{name} is empty'):
    script.main()


@pytest.mark.parametrize('model, source', [('a/b.ckpt', 'a/b.ckpt'), *OWN])
def test_codes_of_a_model_are_compared_on_its_frozen_networks(
  monkeypatch, model, source
):
  given = types.SimpleNamespace(
    config=ConfigDict({'steps': 1, 'network': {'name': 'resnet', 'D': 4}}),
    model=model,
    bottlenecks=['vq'],
    bits_per_pixel=[1.0],
    metrics=[],
    metric_weights={},
  )
  workdir = types.SimpleNamespace(value='workdir')
  monkeypatch.setattr(compare, 'flags', types.SimpleNamespace(FLAGS=given))
  monkeypatch.setattr(program, 'WORKDIR', workdir)
  monkeypatch.setattr(program, 'set_up_jax', lambda saves: None)
  monkeypatch.setattr(compare, 'check_folder', lambda *_: None)
  called = []
  monkeypatch.setattr(compare, 'compare', lambda *x: called.append(x))
  assert compare.main() == program.STOPPED
  network = {'pretrained': source, 'frozen': True}
  assert called[0][0] == {'steps': 1, 'network': network}
