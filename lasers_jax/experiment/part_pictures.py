"""Pictures of what single atoms or codes of an image decode to.

Decoders are not linear, so what a part adds is the difference of two decoded
images, with it and without it, of a few sites around its own.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from lasers_jax.bottlenecks.parts import Parts
from lasers_jax.core.padding import round_up
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.report.explore import Added

CELL = 24  # pixels, about, that a picture shows
MARGIN = 2  # sites around these that are decoded, too
MOST = 2048  # pictures of what parts add
AT_ONCE = 64  # windows
_BRIGHT = 98  # percentile of the largest differences that is fully bright


class Window(NamedTuple):
  """The sites that are decoded around one, and the pixels that are shown.

  Attributes:
    sites: along a side.
    middle: row and column of the one.
    shown: pixels along a side, cut out of the image of the sites.
    first: row and column of the first of them.
  """

  sites: int
  middle: int
  shown: int
  first: int

  @classmethod
  def of(cls, module: Autoencoder) -> 'Window':
    """Returns that of a model: an odd number of sites, three at least."""
    stride = module.stride
    shown = max(3, CELL // stride + (CELL // stride + 1) % 2)
    sites = round_up(shown + 2 * MARGIN, module.pad_multiple // stride)
    middle = sites // 2
    first = (middle - shown // 2) * stride
    return cls(sites, middle, shown * stride, first)


def signals_of(parts: Parts, count: int | None = None) -> np.ndarray:
  """Returns what the first parts of each site add up to: float32 [..., D]."""
  amounts, rows = parts.amounts[..., :count], parts.rows
  used = np.moveaxis(parts.indices[..., :count], -1, 0)
  found = np.zeros((*used.shape[1:], rows.shape[1]), np.float32) + parts.rest
  for i, indices in enumerate(used):
    found += amounts[..., i, None] * rows[indices]
  return found


def background(parts: Parts) -> np.ndarray:
  """Returns what stands in for a site without its part: [D].

  Where a site is a single code, that is the mean of all sites.
  """
  if parts.indices.shape[-1] > 1:
    return parts.rest
  return signals_of(parts).mean(axis=(0, 1))


def added(
  module: Autoencoder, variables: Any, parts: Parts, most: int
) -> Added:
  """Returns pictures of what the parts of sites add to the image.

  Args:
    parts: of one image, [H, W, M].
    most: parts of a site that have pictures, the first ones.
  """
  window, signals = Window.of(module), signals_of(parts)
  used = (parts.amounts[..., :most] != 0).sum(axis=-1)
  every, places = _spread(used)
  margin = window.middle, window.sites - 1 - window.middle
  around = np.pad(signals, (margin, margin, (0, 0)), mode='edge')
  empty, single = background(parts), parts.indices.shape[-1] == 1

  def windows() -> Iterator[np.ndarray]:
    n, middle = window.sites, (window.middle, window.middle)
    for row, column in places:
      there = around[row : row + n, column : column + n]
      yield there
      for i in range(used[row, column]):
        without = there.copy()
        index, amount = (x[row, column, i] for x in parts[:2])
        less = without[middle] - amount * parts.rows[index]
        without[middle] = empty if single else less
        yield without

  images = _decode(module, variables, windows(), window)
  differences, firsts = [], {}
  for row, column in places:
    firsts[row, column] = len(differences)
    whole = next(images)
    differences += [whole - next(images) for _ in range(used[row, column])]
  found = np.stack(differences or [np.zeros((CELL, CELL, 3))])
  peaks = np.abs(found).max(axis=(1, 2, 3))
  gain = 0.5 / max(float(np.percentile(peaks, _BRIGHT)), 1 / 255)
  return Added(_grey(gain * found), firsts, 255 * peaks, 2 * gain, every, most)


def alone(
  module: Autoencoder, variables: Any, parts: Parts, rows: np.ndarray
) -> np.ndarray:
  """Returns pictures of rows decoded alone, stretched: uint8 [n, s, s, 3].

  Args:
    parts: of one image.
    rows: int [n], their numbers; each is decoded with its usual amount there.
  """
  if not len(rows):
    return np.zeros((0, 1, 1, 3), np.uint8)
  window, empty = Window.of(module), background(parts)
  nothing = np.tile(empty, (window.sites, window.sites, 1))

  def windows() -> Iterator[np.ndarray]:
    yield nothing
    for row in rows:
      amounts = np.abs(parts.amounts[parts.indices == row])
      there = nothing.copy()
      added = np.median(amounts[amounts > 0]) * parts.rows[row]
      there[window.middle, window.middle] = parts.rest + added
      yield there

  first, *found = _decode(module, variables, windows(), window)
  found = np.stack(found) - first
  peaks = np.abs(found).max(axis=(1, 2, 3), keepdims=True)
  return _grey(0.5 * found / np.maximum(peaks, 1e-6))


def _spread(used: np.ndarray) -> tuple[int, list[tuple[int, int]]]:
  """Chooses every n-th row and column, so that MOST pictures are enough.

  Args:
    used: int [H, W], pictures of each site.

  Returns:
    n, and the places.
  """
  every = next(
    n for n in range(1, max(used.shape) + 1) if used[::n, ::n].sum() <= MOST
  )
  rows, columns = (range(0, x, every) for x in used.shape)
  return every, [(row, column) for row in rows for column in columns]


def _decode(
  module: Autoencoder,
  variables: Any,
  windows: Iterator[np.ndarray],
  window: Window,
) -> Iterator[np.ndarray]:
  """Yields the middles of decoded windows: float32 [s, s, 3]."""
  shown = slice(window.first, window.first + window.shown)
  pool = max(1, window.shown // CELL)
  for batch in _batches(windows):
    full = np.pad(batch, [(0, AT_ONCE - len(batch)), *[(0, 0)] * 3])
    images = np.asarray(_first_estimate(module, variables, full))
    images = images[: len(batch), shown, shown].astype(np.float32)
    n, side, _, channels = images.shape
    cut = images[:, : side - side % pool, : side - side % pool]
    small = cut.reshape(n, side // pool, pool, side // pool, pool, channels)
    yield from small.mean(axis=(2, 4))


def _batches(windows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
  batch = []
  for x in windows:
    batch.append(x)
    if len(batch) == AT_ONCE:
      yield np.stack(batch)
      batch = []
  if batch:
    yield np.stack(batch)


@functools.partial(jax.jit, static_argnums=0)
def _first_estimate(module, variables, signals):
  def decode(bound, signals):
    return bound.decode_latent(bound.unpack(signals))

  return module.apply(variables, signals, method=decode)


def _grey(difference: np.ndarray) -> np.ndarray:
  """Shows differences in [-0.5, 0.5] around grey."""
  return np.round(255 * np.clip(0.5 + difference, 0, 1)).astype(np.uint8)
