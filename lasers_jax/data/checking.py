"""Reads every image once before a run, and remembers which are good."""

import concurrent.futures
import contextlib
import hashlib
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

_CHUNK = 512  # files that are handed to threads at once
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
      for key, checked in pool.map(lambda x: _check(root, x, known), chunk):
        results.append(checked)
        if not (checked.look.fault or checked.look.profile):
          known[key] = checked.look.height, checked.look.width
        progress(
          'checked %d of %d images of %s', len(results), len(files), root
        )
  finally:
    pool.shutdown(cancel_futures=True)
    if kept and len(known) > before:
      _write(kept, known)
  return results


def _check(root: str, file: str, known: dict) -> tuple[int, Checked]:
  path = os.path.join(root, file)
  try:
    stat = os.stat(path)
  except OSError as error:
    return 0, Checked(0, Look(0, 0, error.strerror))
  text = f'{nfc(file)}\0{stat.st_size}\0{stat.st_mtime_ns}'
  data = text.encode('utf-8', 'surrogateescape')
  key = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
  found = Look(*known[key]) if key in known else look(path)
  return key, Checked(stat.st_size, found)


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
