"""The two errors that the scripts report on one line, and what is no error."""

import contextlib
import logging
from collections.abc import Iterator


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
