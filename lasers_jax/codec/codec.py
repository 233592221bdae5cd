"""Codes of images as bytes, and bytes as codes."""

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

from lasers_jax.bottlenecks import Bottleneck
from lasers_jax.codec import container
from lasers_jax.codec.coder import Reader, Writer
from lasers_jax.codec.counters import Cheapest, Counter, Gatherer
from lasers_jax.codec.layout import Sites, transfer
from lasers_jax.codec.tables import Tables
from lasers_jax.errors import InputError

_TRIED = 16  # sites along each side, to see what they cost at least


@dataclasses.dataclass(frozen=True)
class Codec:
  """Writes and reads the codes of one model.

  Attributes:
    bottleneck: whose codes they are.
    f: pixels along a side of a site.
    multiple: pixels that the sides of an image are padded to a multiple of.
    tables: of `fit_tables`.
    model: container.HASH_BYTES, of `State.hash`.
  """

  bottleneck: Bottleneck
  f: int
  multiple: int
  tables: Tables
  model: bytes

  def write(self, codes: Any, height: int, width: int) -> bytes:
    """Returns the file of an image's codes.

    Args:
      codes: NumPy arrays, as `transfer` takes them, of the padded image.
      height, width: of the image itself, in pixels.
    """
    writer = Writer(self.tables)
    transfer(self.bottleneck, writer, self._sites(height, width), codes)
    frame = container.Frame(self.model, height, width, writer.payload())
    return container.pack(frame)

  def read(self, data: bytes) -> tuple[Any, int, int]:
    """Returns what `write` was given.

    Takes no more memory than so long a file can need.

    Raises:
      InputError: the file is damaged, of another version or of another model.
    """
    frame = container.unpack(data)
    if frame.model != self.model:
      raise InputError(
        f'the file is of another model: {frame.model.hex()} there, '
        f'{self.model.hex()} here'
      )
    sites = self._sites(frame.height, frame.width)
    most = 16 * (len(frame.payload) + 8) / self._least_bits
    if math.prod(sites) > most:
      raise InputError(
        f'the file says {frame.height}x{frame.width} pixels, and is too short '
        'for so many'
      )
    reader = Reader(self.tables, frame.payload)
    codes = transfer(self.bottleneck, reader, sites)
    reader.end()
    return codes, frame.height, frame.width

  def _sites(self, height: int, width: int) -> Sites:
    """H and W of the latent of an image."""
    each = self.multiple // self.f
    return tuple(-(-x // self.multiple) * each for x in (height, width))

  @functools.cached_property
  def _least_bits(self) -> float:
    """What a site costs at least."""
    side = _TRIED * self.bottleneck.patch_side
    cheapest = Cheapest(self.tables)
    transfer(self.bottleneck, cheapest, (side, side))
    return cheapest.bits / side**2


def fit_tables(
  bottleneck: Bottleneck,
  maps: Iterable[tuple[Any, Sites]],
  context: bool = False,
) -> Tables:
  """Counts the codes of images: each with H and W of its latent.

  Args:
    context: whether a network is trained, too, that tells how probable codes
      are from those around them.

  Raises:
    InputError: the code is continuous.
  """
  counter, gatherer = Counter(), Gatherer()
  for codes, sites in maps:
    transfer(bottleneck, counter, sites, codes)
    if context:
      transfer(bottleneck, gatherer, sites, codes)
  return counter.tables() | gatherer.networks()
