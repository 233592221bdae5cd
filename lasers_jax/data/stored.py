"""Images as they are stored: bytes of a file, a label and a name."""

import io
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgpack
import numpy as np
from PIL import Image

from lasers_jax.data.decoding import decode, decode_reduced
from lasers_jax.data.resizing import resize_shorter
from lasers_jax.errors import InputError

# Names of files may hold bytes that are no UTF-8.
_ERRORS = 'surrogateescape'


class Stored(NamedTuple):
  """An image that is not decoded."""

  image: bytes  # of a file of any format that `decode` reads
  label: int  # -1 where none is known
  name: str


@runtime_checkable
class StoredImages(Protocol):
  """Images that can be had without decoding them."""

  def stored(self, index: int) -> Stored: ...


def stored(source: Any, index: int) -> Stored:
  """Returns an image of any `Source`; one that is an array becomes a PNG."""
  if isinstance(source, StoredImages):
    return source.stored(index)
  item = source[index]
  return Stored(encode(item['image'], 'png'), int(item['label']), str(index))


def name_of(source: Any, index: int) -> str:
  """Returns the name of an image of any `Source`; its number without one."""
  if isinstance(source, StoredImages):
    return source.stored(index).name
  return str(index)


def item_of(image: Stored) -> dict:
  """Returns the decoded image and its label, as a source does.

  Raises OSError, SyntaxError or ValueError where it cannot be decoded.
  """
  return {'image': decode(io.BytesIO(image.image)), 'label': image.label}


class Reduced:
  """A source of resized images, whose JPEGs are decoded at a part of the size.

  Args:
    source: a `Source` that is a `StoredImages`, too.
    side: the shorter side to which images are resized; see `decode_reduced`.
  """

  def __init__(self, source: Any, side: int):
    self.name, self.split = source.name, source.split
    self.classes = source.classes
    self._source, self._side = source, side

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict:
    image = self._source.stored(index)
    try:
      pixels, shape = decode_reduced(io.BytesIO(image.image), self._side)
      pixels = resize_shorter(pixels, self._side, shape)
      return {'image': pixels, 'label': image.label}
    except (OSError, SyntaxError, ValueError) as error:
      raise InputError(
        f'{image.name} of {self.name} can no longer be read ({error}): bring '
        'it back, or start again without it'
      ) from error

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns the fingerprint of the source."""
    return self._source.fingerprint


def encode(image: np.ndarray, kind: str, quality: int = 95) -> bytes:
  """Encodes uint8 [h, w, 3] as 'png', or as 'jpeg' without subsampling."""
  file = io.BytesIO()
  if kind == 'png':
    Image.fromarray(image).save(file, 'PNG')
  else:
    Image.fromarray(image).save(file, 'JPEG', quality=quality, subsampling=0)
  return file.getvalue()


def to_record(image: Stored) -> bytes:
  """Returns the record of an image: its fields in MessagePack."""
  return msgpack.packb(image._asdict(), unicode_errors=_ERRORS)


def from_record(record: bytes) -> Stored:
  """Returns the image of a record; raises ValueError where it is none."""
  try:
    return Stored(**msgpack.unpackb(record, unicode_errors=_ERRORS))
  except (TypeError, msgpack.UnpackException) as error:
    raise ValueError(f'no record of an image: {error}') from error
