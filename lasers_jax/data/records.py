"""Reads packed images: array_record shards beside a manifest.

A split is a folder of shards, `00000.array_record` and so on, and of the file
MANIFEST, which is written last. Each record is one image (see `stored`).
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from lasers_jax.core import storage
from lasers_jax.data.slices import rows_of, without_slice
from lasers_jax.data.sources import no_split, unreadable
from lasers_jax.data.stored import Stored, from_record, item_of
from lasers_jax.errors import InputError

MANIFEST = 'records.json'
PLAN = 'packing.json'  # there while a split is being packed
FORMAT = 1
_ANEW = 'copy the shards or pack them anew'


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a packed split says of itself.

  Attributes:
    plan: what was packed, and how; see `packing`.
    classes: the names of the labels; None where there are none.
    counts: the images of each shard.
    sizes: the bytes of each shard.
    hash: of all records, whatever their order.
    left_out: the number of images that were left out.
    skipped: the names of the first of them, and why.
    format: number of the format.
  """

  plan: dict[str, Any]
  classes: list[str] | None
  counts: list[int]
  sizes: list[int]
  hash: str
  left_out: int
  skipped: list[tuple[str, str]]
  format: int = FORMAT


class _Part(NamedTuple):
  """A part of a shard, as `ArrayRecordDataSource` asks for it."""

  filename: str
  skip: int
  take: int
  examples_in_shard: int


class RecordsSource:
  """A source of packed images.

  Args:
    name, split: see `Source`.
    folder: of the shards.
    manifest: of the split.
    rows: which of its images.
  """

  def __init__(
    self, name: str, split: str, folder: str, manifest: Manifest, rows: range
  ):
    from array_record.python.array_record_data_source import (
      ArrayRecordDataSource,
    )

    self.name, self.split, self.classes = name, split, manifest.classes
    self.side = manifest.plan.get('side')  # of the packed images; None: any
    self._hash, self._rows = manifest.hash, rows
    self._all = sum(manifest.counts)
    self._records = ArrayRecordDataSource(
      [*_parts(folder, manifest.counts, rows)], {'max_parallelism': '0'}
    )

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> dict:
    try:
      return item_of(self.stored(index))
    except (OSError, SyntaxError, ValueError) as error:
      raise unreadable(self, index, error, _ANEW) from error

  def stored(self, index: int) -> Stored:
    """Returns an image as it was packed; raises InputError where damaged."""
    if not 0 <= index < len(self):
      raise IndexError(index)
    try:
      return from_record(self._records[index])
    except (RuntimeError, ValueError) as error:
      raise unreadable(self, index, error, _ANEW) from error

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns the count, and the hash of the records and of the slice."""
    rows = self._rows
    part = '' if len(rows) == self._all else f'[{rows.start}:{rows.stop}]'
    return {'count': len(rows), 'hash': self._hash + part}


def shard_name(number: int) -> str:
  """Returns the name of a shard of a split."""
  return f'{number:05}.array_record'


def _parts(folder: str, counts: Sequence[int], rows: range):
  """Yields the parts of shards that hold the rows."""
  first = 0
  for number, count in enumerate(counts):
    start = max(rows.start - first, 0)
    take = min(rows.stop - first, count) - start
    if take > 0:
      yield _Part(os.path.join(folder, shard_name(number)), start, take, count)
    first += count


def open_records(
  rest: str, split: str, workdir: str | None = None
) -> RecordsSource:
  """Opens a split that `lasers-jax pack` has written, local or on `gs://`.

  Nothing is read but the manifest: a record when it is asked for.

  Args:
    rest: the path of the target of the pack.
    split: the name of a split, with a slice if need be: 'train[:90%]'.
    workdir: not used.

  Raises:
    InputError: there is no such split, it is not packed to its end, or a shard
      is missing or of another size.
  """
  if not rest:
    raise InputError("data 'records' needs a path: say records:/my/records")
  if rest.startswith('s3://'):
    raise InputError(
      f'records:{rest}: array_record reads gs:// and local files: copy the '
      'records to one of them'
    )
  root = rest if storage.is_remote(rest) else os.path.expanduser(rest)
  name = f'records:{root}'
  folder = os.path.join(root, without_slice(split))
  manifest = read_manifest(folder)
  if manifest is None:
    raise _no_manifest(root, without_slice(split))
  if not storage.is_remote(folder):
    _check_shards(folder, manifest)
  rows = rows_of(split, sum(manifest.counts))
  return RecordsSource(name, split, folder, manifest, rows)


def read_manifest(folder: str) -> Manifest | None:
  """Reads the manifest of a split; None where there is none.

  Raises:
    InputError: it is damaged or of a newer format.
  """
  path = os.path.join(folder, MANIFEST)
  if not storage.exists(path):
    return None
  try:
    found = json.loads(storage.read_text(path))
    if found['format'] > FORMAT:
      raise InputError(
        f'{path} has the format {found["format"]}, and this version reads up '
        f'to {FORMAT}: update lasers_jax'
      )
    return Manifest(**found)
  except (KeyError, TypeError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
      f'{path} is damaged ({storage.one_line(error)}): pack the images anew'
    ) from error


def packed_splits(root: str) -> list[str]:
  """Returns the splits in a folder that are packed to their ends."""
  if not storage.is_folder(root):
    return []
  return [
    name
    for name in storage.names(root)
    if storage.exists(os.path.join(root, name, MANIFEST))
  ]


def _no_manifest(root: str, split: str) -> InputError:
  if storage.exists(os.path.join(root, split, PLAN)):
    return InputError(
      f'{os.path.join(root, split)} is not packed to its end: run the same '
      'lasers-jax pack again, which goes on'
    )
  if splits := packed_splits(root):
    return no_split(f'records:{root}', split, splits)
  return InputError(
    f'there are no packed images in {root!r}: check the path, or write them '
    'by lasers-jax pack SOURCE TARGET'
  )


def _check_shards(folder: str, manifest: Manifest) -> None:
  for number, size in enumerate(manifest.sizes):
    path = os.path.join(folder, shard_name(number))
    found = os.path.getsize(path) if os.path.isfile(path) else None
    if found != size:
      has = 'is missing' if found is None else f'has {found:,} bytes'
      raise InputError(
        f'{path} {has}, and {size:,} bytes were packed: copy it again, or '
        'pack the images anew'
      )
