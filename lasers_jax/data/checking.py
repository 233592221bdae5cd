"""Reads every image once before a run, and remembers which are good."""

import concurrent.futures
import contextlib
import hashlib
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lasers_jax.core.storage import (
  absolute,
  make_folder,
  opened,
  written_whole,
)
from lasers_jax.data.decoding import Look, look
from lasers_jax.data.listing import Progress
from lasers_jax.data.sources import nfc
from lasers_jax.errors import InputError

_CHUNK, _PART = 512, 32  # files that are handed to threads, and to each
_KEPT = np.dtype([('key', '<u8'), ('height', '<i4'), ('width', '<i4')])


class Checked(NamedTuple):
  """The size of a file, and the look of its image."""

  bytes: int
  look: Look


def check(
  root: str, files: Sequence[str], kept: str | os.PathLike | None = None
) -> list[Checked]:
  """Reads images to their ends, and logs the progress.

  Args:
    root: the folder of the relative paths `files`.
    kept: a file that remembers good images by path, size and time of change;
      None remembers nothing. Where it cannot be read or written, all images are
      read.
  """
  known = _read(kept)
  before = len(known)
  progress, results = Progress(), []
  pool = concurrent.futures.ThreadPoolExecutor()
  try:
    for start in range(0, len(files), _CHUNK):
      chunk = files[start : start + _CHUNK]
      parts = [chunk[i : i + _PART] for i in range(0, len(chunk), _PART)]
      stats = [*itertools.chain(*pool.map(lambda x: _stats(root, x), parts))]
      new = [not fault and key not in known for key, _, fault in stats]
      paths = [os.path.join(root, x) for x in itertools.compress(chunk, new)]
      looks = pool.map(look, paths)
      for (key, size, fault), is_new in zip(stats, new, strict=True):
        if is_new:
          found = next(looks)
          if not (found.fault or found.profile):
            known[key] = found.height, found.width
        else:
          found = Look(0, 0, fault) if fault else Look(*known[key])
        results.append(Checked(size, found))
        progress(
          'checked %d of %d images of %s', len(results), len(files), root
        )
  finally:
    pool.shutdown(cancel_futures=True)
    if kept and len(known) > before:
      _write(kept, known)
  return results


def _stats(
  root: str, files: Sequence[str]
) -> list[tuple[int, int, str | None]]:
  """Returns the key and size of each file, or why it cannot be read."""
  found = []
  for file in files:
    try:
      stat = os.stat(f'{root}/{file}')
    except OSError as error:
      found.append((0, 0, error.strerror))
      continue
    text = f'{nfc(file)}\0{stat.st_size}\0{stat.st_mtime_ns}'
    data = text.encode('utf-8', 'surrogateescape')
    key = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
    found.append((key, stat.st_size, None))
  return found


def _read(kept: str | os.PathLike | None) -> dict[int, tuple[int, int]]:
  """Reads the good images: height and width by key; none if damaged."""
  if kept is None:
    return {}
  try:
    with opened(kept) as file:
      rows = np.load(file, allow_pickle=False)
    if rows.dtype != _KEPT:
      return {}
    sizes = zip(rows['height'].tolist(), rows['width'].tolist(), strict=True)
    return dict(zip(rows['key'].tolist(), sizes, strict=True))
  except Exception:  # a damaged file may raise whatever it likes
    return {}


def _write(kept: str | os.PathLike, known: dict) -> None:
  rows = np.array([(k, *size) for k, size in known.items()], _KEPT)
  # A workdir may be read-only.
  with contextlib.suppress(OSError, InputError):
    make_folder(os.path.dirname(absolute(os.fspath(kept))))
    with written_whole(kept) as file:
      np.save(file, rows)
