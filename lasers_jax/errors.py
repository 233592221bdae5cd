"""The two errors that the scripts report on one line, and words for them."""

import contextlib
import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LETTERS = 60  # of a value in a message


class InputError(ValueError):
  """What the user gave cannot be used; the message says how to mend it.

  The scripts print it and exit with code 2.
  """


class TrainingError(RuntimeError):
  """A run cannot go on, through no fault of what the user gave.

  The scripts print it and exit with code 1.
  """


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
  """Survives what goes wrong in a block that only decorates a result.

  The log says on one line that `what` is missing, and why.
  """
  try:
    yield
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    logging.warning('no %s: %s', what, reason)


def nearest(word: str, words: Iterable[str]) -> str:
  """Asks whether the nearest of some words was meant; '' where none is near.

  Args:
    words: a mapping says how each is to be written.
  """
  close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
  if not close:
    return ''
  shown = words[close[0]] if isinstance(words, Mapping) else close[0]
  return f'; did you mean {shown}?'


def unknown(path: str, word: Any, words: Iterable[str]) -> InputError:
  """The error for a word that is none of those that there are."""
  near = nearest(word, list(words)) if isinstance(word, str) else ''
  must = near.removeprefix('; ') or f'it must be one of {", ".join(words)}'
  return InputError(f'{path} is {shown(word)}: {must}')


def shown(value: Any) -> str:
  """A value as Python writes it, short enough for a line."""
  text = repr(value)
  return text if len(text) <= _LETTERS else text[:_LETTERS] + '...'
