"""Says in the log that something takes long."""

import contextlib
import itertools
import logging
import threading
from collections.abc import Iterator

_FIRST, _AGAIN = 10, 60  # seconds until the log says so


@contextlib.contextmanager
def patience(what: str) -> Iterator[None]:
  """Logs how long a block has taken: after 10 seconds, then every minute.

  Args:
    what: begins the line: 'WHAT: waiting for 10 s'.
  """
  done = threading.Event()

  def say() -> None:
    waited = 0
    for wait in itertools.chain([_FIRST], itertools.repeat(_AGAIN)):
      if done.wait(wait):
        return
      waited += wait
      logging.warning('%s: waiting for %d s', what, waited)

  threading.Thread(target=say, daemon=True).start()
  try:
    yield
  finally:
    done.set()
