"""Arrays in files."""

import os
import zipfile

import numpy as np

from lasers_jax.core.files import one_line


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads an .npz file, as `numpy.savez` writes it; nothing in it is run.

  What it takes of memory is no more than its size.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it cannot be read, is damaged or something else; in one line.
  """
  try:
    with open(path, 'rb') as file, zipfile.ZipFile(file) as parts:
      # Compressed, a small file may hold more than there is memory for.
      if any(x.compress_type != zipfile.ZIP_STORED for x in parts.infolist()):
        raise ValueError('compressed')
      if parts.testzip():
        raise ValueError('a checksum does not fit')
      file.seek(0)
      with np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
      if not all(isinstance(x, np.ndarray) for x in found.values()):
        raise ValueError('not only arrays')
      return found
  except FileNotFoundError:
    raise
  except Exception as error:  # a damaged file may raise whatever it likes
    raise ValueError(one_line(error)) from error
