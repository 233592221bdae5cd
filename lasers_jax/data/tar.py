"""Reads images inside tar shards (WebDataset) at random, by an index.

Nothing is unpacked: tar stores its members as they are, so that a place and a
size are enough to read one.
"""

import concurrent.futures
import functools
import hashlib
import io
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lasers_jax.core.storage import CACHE, one_line, written_whole
from lasers_jax.data.decoding import look
from lasers_jax.data.globbed import files_of, members_of
from lasers_jax.data.listing import Progress, count_reasons, endings
from lasers_jax.data.slices import rows_of
from lasers_jax.data.sources import fingerprint_of
from lasers_jax.data.stored import Stored, item_of
from lasers_jax.data.together import by_the_first
from lasers_jax.errors import InputError

_log = logging.getLogger(__name__)

_FORMAT = 1  # of the index
# The key of a member and its kind, as WebDataset has them: a/b.c.jpg is of the
# key a/b and the kind c.jpg.
_NAME = re.compile(r'((?:.*/)?[^/.]+)\.([^/]*)')
_LABELS = 'cls', 'json'
_LARGEST_LABEL = 1 << 20  # bytes of a member that holds one
_PACKED = {
  b'\x1f\x8b': 'gzip',
  b'BZh': 'bzip2',
  b'\xfd7zXZ': 'xz',
  b'\x28\xb5\x2f\xfd': 'zstd',
}


class Shard(NamedTuple):
  """The index of a shard."""

  places: np.ndarray  # of the bytes of each image, int64
  sizes: np.ndarray
  labels: np.ndarray
  names: list[str]
  left_out: list[tuple[str, str]]


class TarSource:
  """A source of images inside tar shards.

  Args:
    name, split: see `Source`.
    paths: of the shards.
    rows: number of the shard, place, bytes and label of each image, int64
      [n, 4].
    names: of the images.
  """

  classes = None

  def __init__(
    self,
    name: str,
    split: str,
    paths: Sequence[str],
    rows: np.ndarray,
    names: Sequence[str],
  ):
    self.name, self.split = name, split
    self._paths, self._rows, self._names = list(paths), rows, list(names)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> dict:
    try:
      return item_of(self.stored(index))
    except (OSError, SyntaxError, ValueError) as error:
      raise self._gone(index, error) from error

  def stored(self, index: int) -> Stored:
    """Returns an image as its shard has it; InputError where that is gone."""
    shard, place, size, label = self._rows[index].tolist()
    try:
      with open(self._paths[shard], 'rb', buffering=0) as file:
        data = os.pread(file.fileno(), size, place)
    except OSError as error:
      raise self._gone(index, error) from error
    return Stored(data, label, self._names[index])

  def _gone(self, index: int, error: Exception) -> InputError:
    path = self._paths[self._rows[index, 0]]
    return InputError(
      f'{self._names[index]} of {path} can no longer be read '
      f'({one_line(error)}): bring the shard back, or start again'
    )

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns the count, and a hash of the names and sizes of the images."""
    sizes = self._rows[:, 2].tolist()
    pairs = zip(self._names, sizes, strict=True)
    return fingerprint_of(f'{name}\0{size}' for name, size in pairs)


def open_tar(rest: str, split: str, workdir: str | None = None) -> TarSource:
  """Opens one split of tar shards: members of one key are one example.

  An example has one image (`KEY.jpg`, `KEY.png` or any other that is read) and
  may have a label: a whole number in `KEY.cls`, or under `label` or `cls` in
  `KEY.json`. Names of shards may tell the split: train-0001.tar, val/0001.tar;
  otherwise images are held out as in `open_folder`. 'train[:1000]' slices.

  At the first time each image is read to its end; those that cannot be read
  are left out, and counted on one line. The index of a shard is kept beside
  it, `SHARD.index.npz`, or in a cache where nothing can be written there. The
  first of several processes does this for all.

  Args:
    rest: a path or a glob of shards that are not compressed.
    split: the name of the split.
    workdir: not used.

  Raises:
    InputError: no image is left, or a shard is compressed or no tar file.
  """
  return by_the_first(functools.partial(_open, rest, split))


def _open(rest: str, split: str) -> TarSource:
  files = files_of('tar', rest)
  name = f'tar:{rest}'
  paths, belongs = members_of(name, split, files)
  progress, rows, names, left_out = Progress(), [], [], []
  for number, path in enumerate(paths):
    shard = _indexed(path)
    stem = os.path.basename(path)
    columns = shard.places, shard.sizes, shard.labels
    own = [f'{stem}/{key}' for key in shard.names]
    chosen = np.array([belongs(x) for x in own], bool)
    table = np.stack([np.full(len(own), number), *columns], 1)
    rows.append(table[chosen])
    names += [x for x, taken in zip(own, chosen, strict=True) if taken]
    left_out += [(f'{stem}/{key}', why) for key, why in shard.left_out]
    progress('index of %d of %d shards of %s', number + 1, len(paths), name)
  if left_out:
    _log.warning('%s, %s: left out: %s', name, split, count_reasons(left_out))
  if not names:
    also = f'; left out: {count_reasons(left_out)}' if left_out else ''
    raise InputError(
      f'{name} has no image for the split {split!r}: looked for members '
      f'KEY.jpg, KEY.png and all others that Pillow reads{also}'
    )
  table, part = np.concatenate(rows), rows_of(split, len(names))
  part = slice(part.start, part.stop)
  return TarSource(name, split, paths, table[part], names[part])


def _indexed(path: str) -> Shard:
  """Returns the index of a shard: that kept beside it, or a new one."""
  stat = os.stat(path)
  stamp = f'{_FORMAT} {stat.st_size} {stat.st_mtime_ns}'
  digest = hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:32]
  cached = os.path.join(os.path.expanduser(CACHE), 'tar', f'{digest}.npz')
  kept = f'{path}.index.npz', cached
  for file in kept:
    if (shard := _read_index(file, stamp)) is not None:
      return shard
  shard = index_shard(path)
  for file in kept:
    if _write_index(file, stamp, shard):
      break
  return shard


def _read_index(path: str, stamp: str) -> Shard | None:
  try:
    with open(path, 'rb') as file, np.load(file) as found:
      if str(found['stamp']) != stamp:
        return None
      words = json.loads(found['words'].tobytes())
      left_out = [(key, why) for key, why in words['left_out']]
      return Shard(*found['numbers'], words['names'], left_out)
  except Exception:  # a damaged file may raise whatever it likes
    return None


def _write_index(path: str, stamp: str, shard: Shard) -> bool:
  numbers = np.stack(shard[:3])
  words = {'names': shard.names, 'left_out': shard.left_out}
  data = np.frombuffer(json.dumps(words).encode(), np.uint8)
  try:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with written_whole(path) as file:
      np.savez(file, stamp=stamp, numbers=numbers, words=data)
  except OSError:
    return False
  return True


def index_shard(path: str) -> Shard:
  """Reads a shard to its end, and returns where its good images lie.

  A shard that ends too early gives what is whole. Of several images or labels
  of one key the first counts.

  Raises:
    InputError: the file is compressed, no tar file or cannot be read.
  """
  left_out: list[tuple[str, str]] = []
  try:
    with open(path, 'rb') as file:
      _check_plain(path, file.read(6))
      file.seek(0)
      with tarfile.open(fileobj=file, mode='r:') as tar:
        images, labels = _listed(path, file, tar, left_out)
  except tarfile.TarError as error:
    raise InputError(f'{path} is no tar file: {error}') from error
  except OSError as error:
    raise InputError(f'{path} cannot be read: {one_line(error)}') from error
  good = [*_good(path, images, left_out)]
  rows = [(*images[key], labels.get(key, -1)) for key in good]
  columns = np.array(rows, np.int64).reshape(-1, 3).T
  return Shard(*columns, good, left_out)


def _check_plain(path: str, start: bytes) -> None:
  for magic, kind in _PACKED.items():
    if start.startswith(magic):
      raise InputError(
        f'{path} is compressed ({kind}), and images inside it cannot be read '
        'at random: unpack it to a plain .tar'
      )


def _listed(
  path: str,
  file: BinaryIO,
  tar: tarfile.TarFile,
  left_out: list[tuple[str, str]],
) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
  """Returns the places and sizes of the images of a shard, and the labels."""
  images: dict[str, tuple[int, int]] = {}
  labels: dict[str, int] = {}
  for member in _members(path, file, tar, left_out):
    key, kind = _key_and_kind(member.name)
    if kind in _LABELS and member.size <= _LARGEST_LABEL:
      file.seek(member.offset_data)
      label = _label(kind, file.read(member.size))
      if label is None:
        continue
      if key in labels:
        left_out.append((member.name, 'a further label of a key'))
      labels.setdefault(key, label)
    elif f'.{kind}' in endings():
      if key in images:
        left_out.append((member.name, 'a further image of a key'))
      images.setdefault(key, (member.offset_data, member.size))
  return images, labels


def _members(
  path: str,
  file: BinaryIO,
  tar: tarfile.TarFile,
  left_out: list[tuple[str, str]],
) -> Iterator[tarfile.TarInfo]:
  """Yields the regular members that are whole."""
  size = os.path.getsize(path)
  while (member := _next(tar)) is not None:
    tar.members = []  # it would keep all of them
    if member.offset_data + member.size > size:
      left_out.append((member.name, 'cut off'))
      return
    if member.isreg() and not member.issparse():
      yield member
  file.seek(tar.offset)
  block = file.read(tarfile.BLOCKSIZE)
  if block and block != bytes(tarfile.BLOCKSIZE):  # no end as it should be
    _log.warning('%s is cut or damaged at byte %d', path, tar.offset)
    left_out.append((os.path.basename(path), 'what follows a damaged place'))


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
  try:
    return tar.next()
  except tarfile.TarError:  # the data of a long name is cut
    return None


def _key_and_kind(name: str) -> tuple[str, str]:
  found = _NAME.fullmatch(name)
  hidden = os.path.basename(name).startswith('.')
  if not found or hidden:
    return name, ''
  return found[1], found[2].lower()


def _label(kind: str, data: bytes) -> int | None:
  """Returns the label that a member holds; None where it holds none."""
  try:
    found = json.loads(data)
  except ValueError:
    return None
  if kind == 'json' and isinstance(found, dict):
    found = found.get('label', found.get('cls'))
  whole = isinstance(found, int) and not isinstance(found, bool)
  return found if whole and -(2**31) <= found < 2**31 else None


def _good(
  path: str,
  images: dict[str, tuple[int, int]],
  left_out: list[tuple[str, str]],
) -> Iterator[str]:
  """Yields the keys of the images that can be read to their ends."""
  progress = Progress()

  def fault(place: tuple[int, int]) -> str | None:
    return look(io.BytesIO(os.pread(file.fileno(), place[1], place[0]))).fault

  with (
    open(path, 'rb') as file,
    concurrent.futures.ThreadPoolExecutor() as pool,
  ):
    found = pool.map(fault, images.values())
    for number, (key, why) in enumerate(zip(images, found, strict=True), 1):
      if why:
        left_out.append((f'{key} ({why})', 'cannot be read'))
      else:
        yield key
      progress('checked %d of %d images of %s', number, len(images), path)
