"""Reads images whose bytes stand in Parquet files, as on the Hugging Face hub.

A row is had by reading its whole row group: well in order, slowly at random.
"""

import bisect
import itertools
import json
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from lasers_jax.core.storage import one_line
from lasers_jax.data.globbed import files_of, members_of
from lasers_jax.data.slices import rows_of
from lasers_jax.data.sources import fingerprint_of, unreadable
from lasers_jax.data.stored import Stored, item_of
from lasers_jax.errors import InputError

_IMAGES = 'image', 'img', 'picture', 'jpg', 'png'  # usual names of columns
_LABELS = 'label', 'labels', 'cls', 'class'
_KEPT = 2  # row groups


class _Group(NamedTuple):
  """A row group of a file."""

  path: str
  number: int
  first: int  # of its rows in the file


class _File(NamedTuple):
  """What a file says of itself."""

  path: str
  counts: list[int]  # the rows of each row group
  columns: tuple[str, str | None]  # of images and labels
  classes: list[str] | None


class ParquetSource:
  """A source of the rows of Parquet files.

  Args:
    name, split, classes: see `Source`.
    groups: the row groups.
    ends: the number of rows up to the end of each.
    rows: those that belong to the split.
    columns: of the images and, or None, of the labels.
  """

  def __init__(
    self,
    name: str,
    split: str,
    classes: list[str] | None,
    groups: Sequence[_Group],
    ends: Sequence[int],
    rows: Sequence[int],
    columns: tuple[str, str | None],
  ):
    self.name, self.split, self.classes = name, split, classes
    self._groups, self._ends = groups, ends
    self._rows, self._columns = rows, columns
    self._forget()

  def _forget(self):
    self._lock, self._kept = threading.Lock(), {}

  def __getstate__(self):
    return {**self.__dict__, '_lock': None, '_kept': None}

  def __setstate__(self, state):
    self.__dict__ |= state
    self._forget()

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> dict:
    try:
      return item_of(self.stored(index))
    except (OSError, SyntaxError, ValueError) as error:
      remedy = 'pack the images, which leaves it out'
      raise unreadable(self, index, error, remedy) from error

  def stored(self, index: int) -> Stored:
    """Returns an image as its file has it; InputError where there is none."""
    row = self._rows[index]
    number = bisect.bisect_right(self._ends, row)
    group = self._groups[number]
    place = row - (self._ends[number - 1] if number else 0)
    table, (image, label) = self._table(number), self._columns
    found = table[image][place].as_py()
    data, path = found, None
    if isinstance(found, dict):
      data, path = found['bytes'], found.get('path')
    usual = f'{os.path.basename(group.path)}/{group.first + place}'
    known = table[label][place].as_py() if label else None
    return Stored(
      data or b'', -1 if known is None else int(known), path or usual
    )

  def _table(self, number: int):
    import pyarrow.parquet as pq

    with self._lock:
      if number not in self._kept:
        group = self._groups[number]
        columns = [name for name in self._columns if name]
        while len(self._kept) >= _KEPT:
          self._kept.pop(next(iter(self._kept)))
        try:
          with pq.ParquetFile(group.path) as file:
            self._kept[number] = file.read_row_group(group.number, columns)
        except Exception as error:  # of many types
          raise InputError(
            f'{group.path} can no longer be read ({error}): bring it back'
          ) from error
      return self._kept[number]

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns the count, and a hash of names and sizes of files, and rows."""
    sizes = {group.path: os.path.getsize(group.path) for group in self._groups}
    lines = [f'{os.path.basename(x)}\0{size}' for x, size in sizes.items()]
    lines.append(f'{len(self)} {self._rows[0]} {self._rows[-1]}')
    return {**fingerprint_of(lines), 'count': len(self)}


def open_parquet(
  rest: str,
  split: str,
  workdir: str | None = None,
  *,
  image: str | None = None,
  label: str | None = None,
) -> ParquetSource:
  """Opens one split of Parquet files with the bytes of images.

  The column of images holds bytes, or structures with the field `bytes`. Names
  of files may tell the split: train-00000-of-00005.parquet, test/0000.parquet;
  otherwise images are held out as in `open_folder`. 'train[:1000]' slices.

  For training, pack the files: `lasers-jax pack parquet:GLOB TARGET`.

  Args:
    rest: a path or a glob of files.
    split: the name of the split.
    workdir: not used.
    image: the column of the images; None takes the only one, or `image`.
    label: the column of the labels; None takes `label`, where there is one.

  Raises:
    InputError: pyarrow is missing, a file cannot be read, or no column holds
      images.
  """
  name = f'parquet:{rest}'
  paths, belongs = members_of(name, split, files_of('parquet', rest))
  files = [_look_at(path, image, label) for path in paths]
  groups = [
    _Group(file.path, number, first)
    for file in files
    for number, first in enumerate(itertools.accumulate([0, *file.counts[:-1]]))
  ]
  names = (
    f'{os.path.basename(file.path)}/{row}'
    for file in files
    for row in range(sum(file.counts))
  )
  rows = [row for row, x in enumerate(names) if belongs(x)]
  if not rows:
    raise InputError(f'{name} has no row for the split {split!r}')
  part = rows_of(split, len(rows))
  ends = itertools.accumulate(x for file in files for x in file.counts)
  return ParquetSource(
    name,
    split,
    files[0].classes,
    groups,
    list(ends),
    rows[part.start : part.stop],
    files[0].columns,
  )


def _look_at(path: str, image: str | None, label: str | None) -> _File:
  """Reads what a file says of itself; raises InputError where it cannot."""
  try:
    import pyarrow.parquet as pq
  except ImportError:
    raise InputError(
      f"parquet:{path} needs pyarrow: pip install 'lasers_jax[parquet]'"
    ) from None
  try:
    with pq.ParquetFile(path) as file:
      schema, about = file.schema_arrow, file.metadata
      counts = [about.row_group(i).num_rows for i in range(file.num_row_groups)]
  except Exception as error:  # of many types
    raise InputError(
      f'{path} is no Parquet file that can be read: {one_line(error)}'
    ) from error
  columns = _columns(path, schema, image, label)
  return _File(path, counts, columns, _classes(schema, columns[1]))


def _columns(
  path: str, schema: Any, image: str | None, label: str | None
) -> tuple[str, str | None]:
  """Returns the columns of images and labels; raises InputError for none."""
  import pyarrow as pa

  def holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
      return any(x.name == 'bytes' and holds_bytes(x.type) for x in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

  fit = [field.name for field in schema if holds_bytes(field.type)]
  chosen = [x for x in _IMAGES if x in fit] or fit
  if image is not None:
    chosen = [image] if image in fit else []
  if not chosen or (image is None and len(fit) > 1 and chosen == fit):
    raise InputError(
      f'{path}: no column is {image or "surely that of the images"}: it has '
      f'{", ".join(schema.names)}; say data.options.image=COLUMN, of bytes'
    )
  if label is not None and label not in schema.names:
    raise InputError(
      f'{path} has no column {label!r}: it has {", ".join(schema.names)}'
    )
  whole = [x.name for x in schema if pa.types.is_integer(x.type)]
  return chosen[0], label or next((x for x in _LABELS if x in whole), None)


def _classes(schema: Any, label: str | None) -> list[str] | None:
  """Returns the classes that the library `datasets` wrote into a file."""
  try:
    about = json.loads(schema.metadata[b'huggingface'])
    return list(about['info']['features'][label]['names'])
  except (KeyError, TypeError, ValueError):
    return None
