"""The frame of a file: the model, the size, and a checksum.

2 bytes   b'LZ'
1 byte    version: 3 where contexts predict integers, else 2
4 bytes   hash of the model and its tables
4 bytes   CRC-32 of all other bytes
2 to 6    height and width, each in groups of 7 bits, the lowest first; a set
          high bit says that another group follows
the rest  the codes, see `coder`, and zeros up to a bit for each
"""

import struct
import zlib
from typing import NamedTuple

from lasers_jax.errors import InputError

MAGIC = b'LZ'
VERSION = 2
PREDICTED = 3  # version of files of integers that contexts predict
HASH_BYTES = 4
LONGEST_SIDE = 2**21 - 1  # three groups of 7 bits

_HEAD = struct.Struct('<2sB4sI')
HEAD_BYTES = _HEAD.size


class Frame(NamedTuple):
  """Holds the contents of a file."""

  model: bytes  # HASH_BYTES of them
  height: int
  width: int
  payload: bytes
  version: int = VERSION


def pack(frame: Frame) -> bytes:
  """Writes a frame.

  Raises:
    InputError: a side is longer than LONGEST_SIDE pixels.
  """
  sides = frame.height, frame.width
  if not 1 <= min(sides) <= max(sides) <= LONGEST_SIDE:
    raise InputError(
      f'an image of {frame.height}x{frame.width} pixels cannot be encoded: '
      f'sides are from 1 to {LONGEST_SIDE}'
    )
  body = b''.join(pack_side(side) for side in sides) + frame.payload
  return head(frame.model, body, frame.version) + body


def head(model: bytes, body: bytes, version: int = VERSION) -> bytes:
  """Returns the first HEAD_BYTES of the file of a model."""
  return _HEAD.pack(MAGIC, version, model, _check(version, model, body))


def pack_side(value: int) -> bytes:
  """Writes a height or width in groups of 7 bits."""
  groups = []
  while value > 0x7F:
    groups.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*groups, value])


def unpack(data: bytes) -> Frame:
  """Reads a frame.

  Raises:
    InputError: the bytes are none, of another version, cut short or changed.
  """
  if data[: len(MAGIC)] != MAGIC:
    raise InputError('not a file of this codec')
  if len(data) < HEAD_BYTES:
    raise InputError('the file is cut short')
  _, version, model, check = _HEAD.unpack_from(data)
  if version not in (VERSION, PREDICTED):
    raise InputError(
      f'the file is of version {version}, and this program reads {VERSION} and '
      f'{PREDICTED}'
    )
  body = data[HEAD_BYTES:]
  if check != _check(version, model, body):
    raise InputError('the file is damaged: its checksum does not fit')
  height, at = _read_side(body, 0)
  width, at = _read_side(body, at)
  return Frame(model, height, width, body[at:], version)


def expect_version(frame: Frame, version: int) -> None:
  """Raises InputError for a file of codes of another kind."""
  if frame.version != version:
    raise InputError(
      f'the file is of version {frame.version}, and the codes of this model '
      f'are read from version {version}'
    )


def _check(version: int, model: bytes, body: bytes) -> int:
  return zlib.crc32(body, zlib.crc32(MAGIC + bytes([version]) + model))


def _read_side(body: bytes, at: int) -> tuple[int, int]:
  """Reads a side: its value, and where the next one begins."""
  value = 0
  for i in range(3):
    if at + i >= len(body):
      raise InputError('the file is cut short')
    group = body[at + i]
    value |= (group & 0x7F) << 7 * i
    if group < 0x80:
      if not value or (i and not group):
        break
      return value, at + i + 1
  raise InputError('the file says a size that cannot be')
