"""Files of codes by a prior, which is the model of their probabilities.

A file is a frame (see `container`). Its payload begins with FINGERPRINT_BYTES
for each part of `Origin`, and CHECK_BYTES of the codes, which show where
numbers differ all the same; then there are the codes.
"""

import dataclasses
import hashlib
import os
import zlib
from typing import NamedTuple

import jax
import jaxlib
import numpy as np

from lasers_jax.codec import container
from lasers_jax.codec.coder import Reader, Writer
from lasers_jax.codec.prior_walk import PriorWalk
from lasers_jax.core import provenance
from lasers_jax.errors import InputError, TrainingError

FINGERPRINT_BYTES = 2
CHECK_BYTES = 2


class Origin(NamedTuple):
  """What the last bits of a prior's numbers depend on, besides its weights."""

  versions: str
  device: str
  program: str

  @property
  def name(self) -> str:
    """Returns the device without the list of its instructions."""
    return self.device.partition(' (')[0]

  def fingerprint(self) -> bytes:
    """Returns a hash of each part, one after the other."""
    parts = (hashlib.sha256(part.encode()).digest() for part in self)
    return b''.join(part[:FINGERPRINT_BYTES] for part in parts)


def origin_of(walk: PriorWalk) -> Origin:
  """Returns the origin of the numbers of a walk here."""
  device = walk.device
  versions = (
    f'jax {jax.__version__}, jaxlib {jaxlib.__version__}, '
    f'{" ".join(device.client.platform_version.split())}'
  )
  kind = f'{device.platform} {device.device_kind}'
  if device.platform == 'cpu':
    kind = f'cpu {provenance.processor()}'
  return Origin(versions, kind, walk.program)


@dataclasses.dataclass(frozen=True, eq=False)
class PriorCodec:
  """Writes and reads the events of images by a prior over maps.

  Attributes:
    walk: of the prior.
    name: container.HASH_BYTES, of the weights of the prior and its model.
    side: of the images, in pixels.
  """

  walk: PriorWalk
  name: bytes
  side: int

  def write(self, events: np.ndarray) -> bytes:
    """Returns the file of an image's events int32 [H, W, P].

    Raises:
      TrainingError: the file is not read as it was written, which happens where
        a device does not compute the same numbers twice.
    """
    writer = Writer({})
    self.walk.code(writer, events)
    payload = _check(events) + writer.payload()
    if not np.array_equal(self._read(payload), events):
      raise TrainingError(
        f'{self.walk.device} does not compute the same numbers twice, and a '
        'file could not be read again: encode and decode on the CPU '
        '(JAX_PLATFORMS=cpu)'
      )
    payload = origin_of(self.walk).fingerprint() + payload
    frame = container.Frame(self.name, self.side, self.side, payload)
    return container.pack(frame)

  def read(self, data: bytes) -> np.ndarray:
    """Returns the events given to `write`.

    Raises:
      InputError: the file is damaged, of another version or prior, or was
        written where numbers have other last bits.
    """
    frame = container.unpack(data)
    container.expect_version(frame, container.VERSION)
    if frame.model != self.name:
      raise InputError(
        f'the file is of another prior or model: {frame.model.hex()} there, '
        f'{self.name.hex()} here'
      )
    origin = origin_of(self.walk)
    size = len(origin) * FINGERPRINT_BYTES
    check_origin(frame.payload[:size], origin)
    events = self._read(frame.payload[size:])
    if events is None:
      raise InputError(
        'the file is damaged, or the prior has other numbers here, on '
        f'{origin.name}, than where it was encoded: decode it there'
      )
    return events

  def _read(self, payload: bytes) -> np.ndarray | None:
    """Returns events; None where they are not those that were written."""
    try:
      reader = Reader({}, payload[CHECK_BYTES:])
      events = self.walk.code(reader)
      reader.end()
    except InputError:
      return None
    return events if _check(events) == payload[:CHECK_BYTES] else None


def _check(events: np.ndarray) -> bytes:
  """Returns a checksum of events: CHECK_BYTES."""
  data = events.astype('<i4').tobytes()
  return zlib.crc32(data).to_bytes(4, 'little')[:CHECK_BYTES]


def check_origin(found: bytes, origin: Origin) -> None:
  """Raises InputError where the fingerprint of a file is not that of here."""
  here, n = origin.fingerprint(), FINGERPRINT_BYTES
  starts = range(0, len(here), n)
  versions, device, program = (
    here[i : i + n] != found[i : i + n] for i in starts
  )
  differs = []
  if versions:
    differs.append(f'with other versions than {origin.versions}')
  if device:
    differs.append(f'on another device than {origin.name}')
  if program and not differs:  # it follows from the others
    flags = os.environ.get('XLA_FLAGS', '')
    differs.append(f'by another program, or XLA_FLAGS other than {flags!r}')
  if differs:
    raise InputError(
      f'the file was encoded {" and ".join(differs)}, and the numbers of the '
      'prior may differ in their last bits: decode it where it was encoded'
    )
