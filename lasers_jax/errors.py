"""The two errors that the programs report on one line, and helpers."""

import contextlib
import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LETTERS = 60  # of a value in a message


class InputError(ValueError):
  """A user error: something given cannot be used.

  The message names the key, the value, the bound and a remedy. The programs
  print it on one line and exit with code 2.
  """


class TrainingError(RuntimeError):
  """A run that fails although everything given is valid.

  The programs print it on one line and exit with code 1.
  """


@contextlib.contextmanager
def optional(name: str) -> Iterator[None]:
  """Logs an error of a block whose result is optional, and goes on.

  Args:
    name: of the result, for the line of the log: 'no NAME: REASON'.
  """
  try:
    yield
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    logging.warning('no %s: %s', name, reason)


def nearest(word: str, words: Iterable[str]) -> str:
  """Returns '; did you mean X?' for the nearest of some words.

  Args:
    words: the known words; a mapping also gives the spelling to show for each.

  Returns:
    The end of a message; '' where no word is near.
  """
  close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
  if not close:
    return ''
  shown = words[close[0]] if isinstance(words, Mapping) else close[0]
  return f'; did you mean {shown}?'


def unknown(path: str, word: Any, words: Iterable[str]) -> InputError:
  """Returns the error for a word that is none of the known ones."""
  near = nearest(word, list(words)) if isinstance(word, str) else ''
  must = near.removeprefix('; ') or f'it must be one of {", ".join(words)}'
  return InputError(f'{path} is {shown(word)}: {must}')


def shown(value: Any) -> str:
  """Returns a value as Python writes it, cut to the length of a line."""
  text = repr(value)
  return text if len(text) <= _LETTERS else text[:_LETTERS] + '...'
