"""The flags of the programs: their kinds, their reading, their errors.

absl reads the flags, and ml_collections those of single keys of a config. Here
their errors become one line.
"""

import collections
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from lasers_jax.cli import config_file
from lasers_jax.core import ranges
from lasers_jax.core.ranges import declared
from lasers_jax.core.storage import absolute
from lasers_jax.data import DataSettings
from lasers_jax.errors import InputError, nearest, shown
from lasers_jax.experiment import settings, shipped
from lasers_jax.pretrained.tokenizers import SCHEME

_CONFIG = (
  'A config file or the short name of one, and behind a colon its argument: '
  'configs/photos.py:lasers, cifar10:vq. Each key of it is a flag, too: '
  '--config.SECTION.KEY=VALUE.'
)
_HELP = ('help', 'h', '?', 'helpshort')
_TRUTHS = ('true', 't', '1', 'false', 'f', '0')


class _Refused(Exception):
  """An InputError on its way past absl, which wraps every ValueError."""


class _Config(flags.ArgumentParser):
  """Reads FILE or FILE:ARGUMENT; `with_defaults` fills in the rest."""

  def __init__(
    self, with_defaults: Callable[..., dict] = settings.with_defaults
  ):
    self._with_defaults = with_defaults
    self.degradation = ''  # the name of one, which a config may lack

  def parse(self, text: str) -> ConfigDict:
    try:
      return config_file.load(text, self._defaults).lock()
    except InputError as error:
      raise _Refused(str(error)) from error

  def _defaults(self, config: dict, none: Callable[..., Any]) -> dict:
    if self.degradation:
      section = {**config.get('degradation', {}), 'name': self.degradation}
      config = {**config, 'degradation': section}
    return self._with_defaults(config, none)


class Number(flags.ArgumentParser):
  """Reads a number of a kind of `ranges`, for `flags.DEFINE`."""

  def __init__(self, kind: Any):
    self.kind = kind

  def parse(self, text: Any) -> Any:
    return ranges.read(text, self.kind)

  def flag_type(self) -> str:
    return ranges.say(self.kind)


class Numbers(Number):
  """Reads numbers of a kind, joined by commas, to a list."""

  def parse(self, text: Any) -> list:
    if isinstance(text, list):
      return text
    words = text.split(',') if text else []
    return [ranges.read(word, self.kind) for word in words]


class Path(flags.ArgumentParser):
  """Reads a path; expands a `~`, which shells keep behind an equals sign."""

  def parse(self, text: str) -> str:
    return absolute(text) if text else text


class Model(Path):
  """Reads the path of a model; one of diffusers begins with its scheme.

  The names of models that come with the package stay names.
  """

  def parse(self, text: str) -> str:
    if text in shipped.MODELS:
      return text
    scheme = SCHEME if text.startswith(SCHEME) else ''
    return scheme + super().parse(text.removeprefix(scheme))


class NamedPaths(flags.ArgumentParser):
  """Reads NAME=PATH,NAME=PATH to a dictionary."""

  def parse(self, text: str | dict[str, str]) -> dict[str, str]:
    if isinstance(text, dict):
      return text
    pairs = [word.partition('=') for word in text.split(',') if word]
    for name, equals, path in pairs:
      if not (name and equals and path):
        raise ValueError(f'it must be NAME=PATH, not {name + equals + path}')
    return {name: absolute(path) for name, _, path in pairs}

  def flag_type(self) -> str:
    return 'NAME=PATH, joined by commas'


def define_prior() -> None:
  """Defines --prior, for programs that draw from a prior or export it."""
  flags.DEFINE(
    Model(),
    'prior',
    None,
    'Workdir of a trained prior of maps, or the name of one that comes along.',
  )


def define_model() -> None:
  """Defines --model, for programs that measure or use a model."""
  flags.DEFINE(
    Model(),
    'model',
    None,
    'Model instead of that of --workdir: an exported one, the name of one of '
    'the package, or a tokenizer of another project, diffusers:FOLDER or a '
    'file of weights.',
  )


def define_images() -> None:
  """Defines --data and --side, of models whose own images are not known."""
  flags.DEFINE_string(
    'data',
    None,
    'Images to fit to, as data.name of a config; those of the model if unset.',
  )
  flags.DEFINE(
    Number(declared(DataSettings, 'side')),
    'side',
    None,
    'Side of the squares cut out of them; as in the config if unset.',
  )


def define_config(
  with_defaults: Callable[..., dict] = settings.with_defaults,
) -> None:
  """Defines the flag --config, and those of its keys."""
  config_flags.DEFINE_config_file('config', help_string=_CONFIG)
  flags.FLAGS['config'].parser = _Config(with_defaults)


def parse(argv: list[str], words: bool, program: str) -> list[str]:
  """Reads the flags, and returns the name of the program and other words.

  Args:
    argv: as sys.argv.
    words: whether words that are no flags are allowed.
    program: the module that defines the flags; its docstring heads the help.

  Raises:
    InputError: a flag or a key is unknown or given twice, a value cannot be
      used, or a config file raises an error.
    SystemExit: with code 0, after the help was printed.
  """
  names = collections.Counter(_names(argv))
  if not names.keys().isdisjoint(_HELP):
    _print_help(program, () if words else ('config', 'workdir'))
    sys.exit(0)
  twice = [name for name, count in names.items() if count > 1]
  if twice:
    raise InputError(f'--{twice[0]} is given twice')
  if 'config' in flags.FLAGS:
    flags.FLAGS['config'].parser.degradation = _degradation(argv)
  try:
    rest = flags.FLAGS(argv)
  except _Refused as error:
    raise InputError(str(error)) from error
  except Exception as error:  # of many types
    raise InputError(_explain(argv) or str(error)) from error
  if rest[1:] and not words:
    raise InputError(f'not a flag: {rest[1]}')
  return rest


def _degradation(argv: list[str]) -> str:
  """The value of --config.degradation.name, whose keys are flags then."""
  for arg in argv:
    name, _, value = arg.lstrip('-').partition('=')
    if name == 'config.degradation.name':
      return value
  return ''


def _names(argv: list[str]) -> Iterator[str]:
  """Yields the names of flags, up to a lone --."""
  for arg in argv[1:]:
    if arg == '--':
      return
    if arg.startswith('-') and not arg.lstrip('-')[:1].isdigit():
      yield arg.lstrip('-').partition('=')[0]


def _print_help(program: str, shared: Sequence[str]) -> None:
  """Prints the docstring of a program, its flags and those that it shares."""
  for name in shared:
    if name in flags.FLAGS:
      flags.FLAGS.register_key_flag_for_module(program, flags.FLAGS[name])
  print(sys.modules[program].__doc__)
  print(flags.FLAGS.module_help(program))


def _explain(argv: list[str]) -> str | None:
  """Returns the error among --config.KEY=VALUE; None if all are right."""
  changes, others = [], []
  for arg in argv:
    changes_key = arg.lstrip('-').startswith(('config.', 'noconfig.'))
    (changes if changes_key else others).append(arg)
  sys.argv = others  # the flag of the config file looks there for changes
  try:
    flags.FLAGS.unparse_flags()
    flags.FLAGS(others)
    config = flags.FLAGS.config
  except Exception:  # Then something else is wrong.
    return None
  if config is None and changes:
    return f'--config=FILE must come before {changes[0]}'
  return next(filter(None, (_wrong(config, x) for x in changes)), None)


def _wrong(config: ConfigDict, change: str) -> str | None:
  """Returns why a config cannot take --config.KEY=VALUE; None if it can."""
  name, given, text = change.partition('=')
  path = name.partition('.')[2]
  for name in path.split('.'):
    keys = config if isinstance(config, ConfigDict) else ()
    if name == 'degradation' and name not in keys:
      return f'name a degradation for {path}: --config.degradation.name=NAME'
    if name not in keys:
      return f'the config has no key {path}{nearest(name, keys)}'
    kind, config = config.get_type(name), config[name]
  if issubclass(kind, ConfigDict):
    return f'{path} must be set key by key: --config.{path}.KEY=VALUE'
  if not given:
    return None
  must = None
  if kind is bool and text.lower() not in _TRUTHS:
    must = ranges.say(kind)
  elif kind in (int, float):
    try:
      kind(text)
    except ValueError:
      must = ranges.say(kind)
  return must and f'{path} is {shown(text)}: it must be {must}'
