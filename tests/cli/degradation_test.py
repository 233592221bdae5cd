"""The section of a degradation on the command line, for any config."""

import sys
import types

import pytest
from absl import flags
from ml_collections import config_flags

import lasers_jax as lj
from lasers_jax.cli import codec, command_line
from lasers_jax.errors import InputError


@pytest.fixture
def parse(monkeypatch):
  """Parses words after a config that has no degradation: the config."""

  def run(*words):
    own = flags.FlagValues()
    monkeypatch.setattr(flags, 'FLAGS', own)
    monkeypatch.setattr(config_flags.config_flags, 'FLAGS', own)
    config_flags.DEFINE_config_file('config', flag_values=own)
    own['config'].parser = command_line._Config()
    argv = ['train.py', '--config=cifar10:vq', *words]
    monkeypatch.setattr(sys, 'argv', argv)
    command_line.parse(argv, False, __name__)
    return own.config

  return run


def test_its_keys_are_flags_once_it_is_named(parse):
  config = parse(
    '--config.degradation.name=superres', '--config.degradation.scale=2'
  )
  assert config.degradation.scale == 2
  assert config.degradation.kernel == 'cubic'


def test_a_config_has_none_by_itself(parse):
  assert 'degradation' not in parse()


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    (['scale=2'], 'name a degradation for degradation.scale: --config.degra'),
    (['name=superres', 'scal=2'], 'no key degradation.scal; did you mean sca'),
    (
      ['name=superres', 'scale=x'],
      "degradation.scale is 'x': it must be a who",
    ),
  ],
)
def test_what_cannot_be_used_is_one_line(parse, words, said):
  with pytest.raises(InputError, match=said):
    parse(*(f'--config.degradation.{word}' for word in words))


def test_the_face_takes_it_by_name():
  config = lj.config(
    'cifar10', degradation='inpaint', degradation__mask='centre'
  )
  assert config['degradation']['mask'] == 'centre'
  with pytest.raises(
    InputError, match="name is 'inpant': did you mean inpaint"
  ):
    lj.config('cifar10', degradation='inpant')


@pytest.mark.parametrize(
  'words, given',
  [
    ('decode a.lz b', {'degradation': True, 'model': 'run'}),
    ('curve a.png', {'masks': 'masks', 'model': 'run'}),
    ('encode a.png b', {'degradation': True, 'prior': 'run'}),
  ],
)
def test_a_file_is_restored_by_encode_of_a_model_alone(
  monkeypatch, words, given
):
  unset = dict.fromkeys(('degradation', 'masks', 'prior', 'model'))
  found = types.SimpleNamespace(**unset | given)
  monkeypatch.setattr(codec.flags, 'FLAGS', found)
  monkeypatch.setattr(codec.program, 'set_up_jax', lambda: None)
  with pytest.raises(InputError, match='are of encode by a --model'):
    codec.main(words.split())
