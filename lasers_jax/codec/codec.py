"""Codes of images as bytes, and bytes as codes."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from lasers_jax.bottlenecks import Bottleneck
from lasers_jax.bottlenecks.coder import Sites
from lasers_jax.codec import container
from lasers_jax.codec.coder import BEYOND, WORD, Reader, Writer
from lasers_jax.codec.counters import Checker, Counter, MapCollector
from lasers_jax.codec.scales import Scales
from lasers_jax.codec.tables import Tables
from lasers_jax.errors import InputError

_CODES_PER_BYTE = 8  # at most, whatever they cost


@dataclasses.dataclass(frozen=True)
class Codec:
  """Writes and reads the codes of one model.

  Attributes:
    bottleneck: of the codes.
    f: pixels along a side of a site that is coded.
    pad_multiple: pixels that the sides of an image are padded to a multiple of.
    tables: of `fit_tables`.
    model: container.HASH_BYTES, of `State.hash`.

  Raises:
    InputError: the tables are of other codes, or a table is missing.
  """

  bottleneck: Bottleneck
  f: int
  pad_multiple: int
  tables: Tables
  model: bytes

  def __post_init__(self):
    try:
      sites = self._sites(self.pad_multiple, self.pad_multiple)
      self.bottleneck.transfer(Checker(self.tables), sites)
    except ValueError as error:
      raise InputError(str(error)) from error

  @property
  def version(self) -> int:
    """Returns the version of files of such codes."""
    predicted = any(
      name.endswith(f'@{Scales._fields[-1]}') for name in self.tables
    )
    return container.PREDICTED if predicted else container.VERSION

  def write(self, codes: Any, height: int, width: int) -> bytes:
    """Returns the file of an image's codes.

    Zeros pad it to at least one bit for each site, so that the size
    of a file bounds the time and memory of reading it.

    Args:
      codes: NumPy arrays, as `Bottleneck.transfer` takes them, of the padded
        image.
      height, width: of the image itself, in pixels.
    """
    sites, writer = self._sites(height, width), Writer(self.tables)
    self.bottleneck.transfer(writer, sites, codes)
    payload = writer.payload().ljust(self._least(sites), b'\0')
    frame = container.Frame(self.model, height, width, payload, self.version)
    return container.pack(frame)

  def read(self, data: bytes) -> tuple[Any, int, int]:
    """Returns codes, height and width, as given to `write`.

    Raises:
      InputError: the file is damaged, of another version or of another model.
    """
    frame = container.unpack(data)
    container.expect_version(frame, self.version)
    if frame.model != self.model:
      raise InputError(
        f'the file is of another model: {frame.model.hex()} there, '
        f'{self.model.hex()} here'
      )
    sites, size = self._sites(frame.height, frame.width), len(frame.payload)
    if size < (least := self._least(sites)):
      raise InputError(
        f'the file says {frame.height}x{frame.width} pixels, and is too short '
        'for so many'
      )
    if size > least and not any(frame.payload[-WORD:]):
      raise InputError(BEYOND)
    reader = Reader(self.tables, frame.payload)
    codes = self.bottleneck.transfer(reader, sites)
    reader.end()
    return codes, frame.height, frame.width

  def _sites(self, height: int, width: int) -> Sites:
    """H and W of the latent of an image."""
    each = self.pad_multiple // self.f
    return tuple(-(-x // self.pad_multiple) * each for x in (height, width))

  def _least(self, sites: Sites) -> int:
    """How many bytes the codes of so many sites take at least: whole words."""
    return WORD * -(-math.prod(sites) // (_CODES_PER_BYTE * WORD))


def fit_tables(
  bottleneck: Bottleneck,
  maps: Iterable[tuple[Any, Sites]],
  context: bool = False,
) -> Tables:
  """Counts the codes of images, each with H and W of its latent.

  Args:
    context: whether to train a network, too, which predicts the probabilities
      of codes from those around them.

  Raises:
    InputError: the code is continuous.
  """
  counter, collector = Counter(), MapCollector()
  for codes, sites in maps:
    bottleneck.transfer(counter, sites, codes)
    if context:
      bottleneck.transfer(collector, sites, codes)
  return counter.tables() | collector.networks()
