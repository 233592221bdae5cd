"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, mode: str = 'wb') -> Iterator[IO]:
  """Opens a file that takes its name when the block ends without an error.

  A file of that name is replaced in one act. Several processes may write the
  same one.
  """
  path = os.fspath(path)
  temporary = f'{path}.{os.getpid()}.part'
  try:
    with open(temporary, mode) as file:
      yield file
    os.replace(temporary, path)
  finally:
    if os.path.exists(temporary):
      os.remove(temporary)
