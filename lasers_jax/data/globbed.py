"""Finds the files of a glob, and the splits that their names tell."""

import glob
import logging
import os
import re
from collections.abc import Callable, Sequence

from lasers_jax.core.storage import is_remote
from lasers_jax.data.listing import Listing
from lasers_jax.data.slices import without_slice
from lasers_jax.data.splits import cut, split_in
from lasers_jax.errors import InputError

_log = logging.getLogger(__name__)


def files_of(scheme: str, pattern: str) -> list[str]:
  """Returns the files of a glob of this machine, in order.

  Raises:
    InputError: there is none, or the pattern is an address.
  """
  if not pattern:
    raise InputError(
      f'data {scheme!r} needs a path or a glob: say {scheme}:/my/shards/*'
    )
  if is_remote(pattern):
    raise InputError(
      f'{scheme}:{pattern} is read from disks alone: copy the files here; '
      'what lasers-jax pack makes of them may lie on gs://'
    )
  found = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
  files = [path for path in found if os.path.isfile(path)]
  if not files:
    raise InputError(
      f'{scheme}:{pattern} names no file: check the path, and quote it from '
      'the shell'
    )
  return files


def members_of(
  name: str, split: str, files: Sequence[str]
) -> tuple[list[str], Callable[[str], bool]]:
  """Finds a split among files whose names tell it: train-0001.tar, val/7.tar.

  Where no name tells a split, or one has no file, images are held out as in
  `open_folder`: by the hash of the name.

  Args:
    name: of the source, SCHEME:GLOB.
    split: its name, or 'all'; a slice is ignored.
    files: of the source.

  Returns:
    The files that hold the split, and a test of the names of their images.

  Raises:
    InputError: there is no such split.
  """
  pattern = os.path.expanduser(name.partition(':')[2])
  fixed = re.split(r'[*?\[]', pattern, maxsplit=1)[0]
  top = os.path.dirname(fixed)  # what stands above says nothing of the split
  told = {path: _split_of(os.path.relpath(path, top or '.')) for path in files}
  folders = sorted({split for split in told.values() if split})
  part = cut(name, Listing([], [], folders), without_slice(split))
  if part.said:
    _log.info('%s: %s', name, part.said)
  if not part.base:
    return list(files), part.belongs
  others = [path for path in files if not told[path]]
  if others and split == 'train':
    _log.warning(
      '%s: %d files are of no split, as %s', name, len(others), others[0]
    )
  return [path for path in files if told[path] == part.base], part.belongs


def _split_of(path: str) -> str | None:
  """Returns the split that the name of a file, or of its folder, tells."""
  folder, name = os.path.split(path)
  return split_in(name) or split_in(os.path.basename(folder))
