"""A config file: Python with a function `get_config`.

--config takes NAME or NAME:ARGUMENT: a file, or the short name of one that
comes with the package (cifar10), and the argument of its function.
"""

import glob
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from lasers_jax.core import ranges
from lasers_jax.core.storage import is_remote
from lasers_jax.errors import InputError, nearest
from lasers_jax.experiment import settings

_MODULE = 'config_file_of_the_run'
_LETTERS = 160  # of a path and of what a file raises


def load(
  text: str, with_defaults: Callable[..., dict] = settings.with_defaults
) -> ConfigDict:
  """Returns the config of `NAME[:ARGUMENT]`, with all defaults filled in.

  Args:
    text: a file or the short name of one that comes with the package, and the
      argument of its `get_config`.
    with_defaults: fills in the defaults of a config.

  Raises:
    InputError: there is no such file, or it fails; the message says where.
  """
  if is_remote(text):
    raise InputError(
      f'the config {text} is Python code that is run: copy it to this machine'
    )
  path, *argument = text.split(':', 1)
  path = _locate(os.path.expanduser(path))
  get_config = getattr(_run(path), 'get_config', None)
  if get_config is None:
    raise InputError(f'{path} has no function get_config')
  try:
    inspect.signature(get_config).bind(*argument)
  except TypeError as error:
    takes = 'takes no argument' if argument else 'needs an argument'
    raise InputError(f'get_config of {path} {takes}: {text}') from error
  config = _guarded(path, lambda: get_config(*argument))
  if not isinstance(config, ConfigDict):
    raise InputError(
      f'get_config of {path} returned {type(config).__name__}, no ConfigDict'
    )
  # So that each field is a flag.
  values = config.to_dict(preserve_field_references=True)
  return ConfigDict(with_defaults(values, _unset))


def folder() -> str:
  """Returns the folder of the configs that come with the package."""
  package = os.path.dirname(os.path.dirname(__file__))
  inside = os.path.join(package, 'configs')  # of a wheel
  return (
    inside if os.path.isdir(inside) else os.path.join(package, '../configs')
  )


def _unset(kind: Any) -> Any:
  """Returns a value that is None until a flag sets it."""
  return placeholder(ranges.type_of(kind))


def _locate(path: str) -> str:
  """Returns the file of a path or of a short name."""
  short = os.path.join(folder(), f'{path}.py')
  known = not os.path.exists(path) and os.path.isfile(short)
  return os.path.normpath(short) if known and path == _stem(path) else path


def _run(path: str) -> ModuleType:
  """Runs a file as a module."""
  if not os.path.isfile(path):
    kind = 'a folder' if os.path.isdir(path) else 'no file'
    known = {_stem(x): _stem(x) for x in _beside(f'{folder()}/')}
    known |= {_stem(x): x for x in (*_beside(path), *_beside('configs/'))}
    raise InputError(
      f'the config {path!r} is {kind}{nearest(_stem(path), known)}'
    )
  spec = importlib.util.spec_from_file_location(_MODULE, path)
  if spec is None:
    raise InputError(f'the config {path!r} is no Python file (.py)')
  module = importlib.util.module_from_spec(spec)
  sys.modules[_MODULE] = module
  _guarded(path, lambda: spec.loader.exec_module(module))
  return module


def _stem(path: str) -> str:
  return os.path.splitext(os.path.basename(path))[0]


def _beside(path: str) -> list[str]:
  folder = glob.escape(os.path.dirname(path))
  return sorted(glob.glob(os.path.join(folder, '*.py')))


def _guarded(path: str, act: Callable[[], Any]) -> Any:
  """Calls a function; turns an error of a config file into one line."""
  try:
    return act()
  except InputError:
    raise
  except (Exception, SystemExit) as error:
    frames = traceback.extract_tb(error.__traceback__)
    here = os.path.abspath(path)
    lines = [x.lineno for x in frames if os.path.abspath(x.filename) == here]
    line = lines[-1] if lines else getattr(error, 'lineno', None)
    where = f'{path}, line {line}' if line else path
    text = ' '.join(str(getattr(error, 'msg', error)).split())
    text = f'{type(error).__name__}: {text}'
    raise InputError(f'{where}: {text[: _LETTERS - len(path)]}') from error
