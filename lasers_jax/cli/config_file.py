"""A config file: Python with a function `get_config`.

What --config names is FILE, or FILE:ARGUMENT for the argument of its function.
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

from lasers_jax.errors import InputError, nearest

_MODULE = 'config_file_of_the_run'
_LETTERS = 160  # of a path and of what a file raises


def load(text: str) -> ConfigDict:
  """Returns what `get_config` of a file returns, for `FILE[:ARGUMENT]`.

  Raises:
    InputError: there is no such file, or it fails; the message says where.
  """
  path, *argument = text.split(':', 1)
  path = os.path.expanduser(path)
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
  return config


def _run(path: str) -> ModuleType:
  """Runs a file as a module."""
  if not os.path.isfile(path):
    kind = 'a folder' if os.path.isdir(path) else 'no file'
    known = {_stem(x): x for x in (*_beside(path), *_beside('configs/'))}
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
  """Acts; what a config file raises becomes one line that says where."""
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
