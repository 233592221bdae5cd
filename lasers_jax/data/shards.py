"""Writes shards of packed images, each whole or not at all."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

from lasers_jax.core import storage
from lasers_jax.core.ranges import Count, Range, check_fields
from lasers_jax.data.decoding import decode, look
from lasers_jax.data.records import shard_name
from lasers_jax.data.resizing import resize_shorter
from lasers_jax.data.sources import Source
from lasers_jax.data.stored import Stored, encode, stored, to_record
from lasers_jax.errors import InputError

_WRITER = 'group_size:1,uncompressed'  # images are compressed already


@dataclasses.dataclass(frozen=True)
class Packing:
  """How images are packed.

  Attributes:
    side: the shorter side to which larger images are reduced; None keeps the
      bytes of all images as they are.
    encoding: of images that are reduced.
    quality: of JPEG; colours are not subsampled.
    per_shard: images of a shard.
  """

  side: Annotated[int, Range(8, 65_535)] | None = None
  encoding: Literal['jpeg', 'png'] = 'jpeg'
  quality: Annotated[int, Range(1, 100)] = 95
  per_shard: Count = 4096

  def __post_init__(self):
    check_fields(self)
    if self.encoding not in ('jpeg', 'png'):
      raise InputError(f'encoding is {self.encoding!r}: it must be jpeg or png')


class Job(NamedTuple):
  """A shard to write."""

  folder: str  # of the split
  number: int
  rows: range


def write_shard(
  job: Job,
  source: Source,
  packing: Packing,
  update: Callable[[int], Any],
) -> dict[str, Any]:
  """Writes a shard whole or not at all; returns its note, which is kept.

  Args:
    job: which shard.
    source: of the images.
    packing: how to pack.
    update: is told the number of images that were looked at.
  """
  path = os.path.join(job.folder, shard_name(job.number))
  count, total, skipped = 0, 0, []
  with part_of(path) as part, writing(path):
    write, close = record_writer(part)
    for index in job.rows:
      image = stored(source, index)
      try:
        record = to_record(_packed(image, packing))
      except (OSError, SyntaxError, ValueError) as error:
        skipped.append((image.name, storage.one_line(error)))
      else:
        write(record)
        count, total = count + 1, total + _hash(record)
      update(1)
    close()
    size = os.path.getsize(part)
    publish(part, path)
  note = {
    'count': count,
    'size': size,
    'hash': f'{total % 2**128:032x}',
    'skipped': skipped,
  }
  with writing(path):
    storage.write_text(note_of(job), storage.as_json(note))
  return note


def _packed(image: Stored, packing: Packing) -> Stored:
  """Returns an image as it is packed; raises where it cannot be decoded."""
  if packing.side is None:
    fault = look(io.BytesIO(image.image)).fault
    if fault:
      raise ValueError(fault)
    return image
  pixels = decode(io.BytesIO(image.image))
  if min(pixels.shape[:2]) <= packing.side:
    return image
  pixels = resize_shorter(pixels, packing.side)
  return image._replace(image=encode(pixels, packing.encoding, packing.quality))


def _hash(record: bytes) -> int:
  # Sums of hashes do not depend on the order.
  return int.from_bytes(hashlib.blake2b(record, digest_size=16).digest())


def record_writer(path: str) -> tuple[Callable, Callable]:
  """Returns functions that write a record and close a file of array_record.

  They raise OSError.
  """
  from array_record.python.array_record_module import ArrayRecordWriter

  writer = ArrayRecordWriter(path, _WRITER)

  def guarded(act):
    def guard(*args):
      try:
        act(*args)
      except RuntimeError as error:  # of a full disk, too
        raise OSError(storage.one_line(error)) from error

    return guard

  return guarded(writer.write), guarded(writer.close)


@contextlib.contextmanager
def part_of(path: str) -> Iterator[str]:
  """Gives the path of a local file to write before it is published."""
  if not storage.is_remote(path):
    folder, name = os.path.split(path)
    part = os.path.join(folder, f'.{name}{storage.PART}')
    try:
      yield part
    finally:
      with contextlib.suppress(FileNotFoundError):
        os.remove(part)
    return
  with tempfile.TemporaryDirectory(prefix='lasers_jax_pack_') as folder:
    yield os.path.join(folder, 'shard')


def publish(part: str, path: str) -> None:
  """Gives a local file its name, or uploads it whole."""
  if not storage.is_remote(path):
    os.replace(part, path)
    return
  with open(part, 'rb') as file, storage.written_whole(path) as target:
    shutil.copyfileobj(file, target, 1 << 24)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
  """Turns an error of the disk into one line; see `storage.writing`."""
  with storage.writing(path, 'make room; the same command goes on'):
    yield


def note_of(job: Job) -> str:
  """Returns the path of the note of a shard."""
  return os.path.join(job.folder, f'{shard_name(job.number)}.json')


def read_note(job: Job) -> dict[str, Any] | None:
  """Returns the note of a shard that is there; None if it must be written."""
  if not storage.exists(note_of(job)):
    return None
  return json.loads(storage.read_text(note_of(job)))
