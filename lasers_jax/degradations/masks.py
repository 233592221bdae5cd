"""Masks of holes: float32 [h, w], 1 in the holes, of a key.

Strokes are those of R. Suvorov et al., "Resolution-robust large mask inpainting
with Fourier convolutions", WACV 2022, by the numbers of their settings for
images of 256 pixels, here as shares of the shorter side.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_SIDE = 256  # of the images that the numbers of strokes are for
_PIECES = 5  # of a polyline, at most
_TRIES = 4
_LEAST, _MOST = 0.05, 0.5  # of an image, that strokes cover


class Strokes(NamedTuple):
  """Numbers of strokes: how many polylines, how wide, how long a piece."""

  fewest: int
  most: int
  width: float
  length: float


STROKES = {
  'thin': Strokes(4, 50, 10, 40),
  'medium': Strokes(4, 5, 50, 100),
  'thick': Strokes(1, 5, 100, 200),
}


def centre(key: Array, height: int, width: int, share: float) -> Array:
  """A quarter of the image: the middle half of its sides."""
  del key, share
  return _box(height // 4, width // 4, height // 2, width // 2, height, width)


def box(key: Array, height: int, width: int, share: float) -> Array:
  """A box anywhere, a quarter to a half of each side."""
  del share
  keys = jax.random.split(key, 4)
  tall, top = _span(keys[:2], height)
  wide, left = _span(keys[2:], width)
  return _box(top, left, tall, wide, height, width)


def pixels(key: Array, height: int, width: int, share: float) -> Array:
  """Single pixels, each with the same probability."""
  lost = _uniform(key, (height, width), 1) < share
  return lost.astype(jnp.float32)


def _strokes(kind: Strokes) -> Callable[..., Array]:
  def strokes(key: Array, height: int, width: int, share: float) -> Array:
    """Polylines; of four draws the first of a share that is used, or a box."""
    keys = jax.random.split(key, _TRIES)
    draw = jax.vmap(lambda key: draw_strokes(key, height, width, kind))
    found = draw(keys)
    covered = jnp.mean(found, axis=(1, 2))
    fits = (covered >= _LEAST) & (covered <= _MOST)
    otherwise = centre(key, height, width, share)
    return jnp.where(jnp.any(fits), found[jnp.argmax(fits)], otherwise)

  return strokes


def mixed(key: Array, height: int, width: int, share: float) -> Array:
  """One of centre, box, thick strokes and pixels, all equally likely."""
  kind_key, key = jax.random.split(key)
  kinds = centre, box, MASKS['strokes'], pixels
  kind = jax.random.randint(kind_key, (), 0, len(kinds))
  made = [make(key, height, width, share) for make in kinds]
  return jnp.stack(made)[kind]


def draw_strokes(key: Array, height: int, width: int, kind: Strokes) -> Array:
  """Draws polylines of 1 to 5 pieces from anywhere, with round ends."""
  unit = min(height, width) / _SIDE
  keys = jax.random.split(key, 7)
  n, each = kind.most, (kind.most, _PIECES)
  lines = jax.random.randint(keys[0], (), kind.fewest, kind.most + 1)
  pieces = jax.random.randint(keys[1], (n,), 1, _PIECES + 1)
  angles = _uniform(keys[2], each, 4)
  # Every second piece turns the other way.
  angles = jnp.where(jnp.arange(_PIECES)[None] % 2, angles, -angles)
  lengths = 10 + _uniform(keys[3], each, kind.length)
  brushes = 5 + _uniform(keys[4], (n,), kind.width)
  limits = jnp.array([[height, width]], jnp.float32)
  points = _uniform(keys[5], (n, 2), 1) * limits
  turned = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
  moves = unit * lengths[..., None] * turned
  mask = jnp.zeros((height, width), bool)
  drawn = jnp.arange(n) < lines
  for i in range(_PIECES):
    ends = jnp.clip(points + moves[:, i], 0, limits)
    radii = jnp.where(drawn & (i < pieces), brushes * unit / 2, -1.0)
    mask |= jnp.any(near(points, ends, radii, height, width), axis=0)
    points = ends
  return mask.astype(jnp.float32)


def _uniform(key: Array, shape: tuple[int, ...], high: float) -> Array:
  return jax.random.uniform(key, shape, jnp.float32, maxval=high)


def near(
  starts: Array, ends: Array, radii: Array, height: int, width: int
) -> Array:
  """Returns which pixels lie within radii of segments: bool [n, height, width].

  Args:
    starts, ends: [n, 2], rows and columns; a segment may have no length.
    radii: [n], in pixels; none is drawn below 0.
  """
  rows = jnp.arange(height)[None, :, None] + 0.5
  columns = jnp.arange(width)[None, None, :] + 0.5
  (y, x), (dy, dx) = (v.T[:, :, None, None] for v in (starts, ends - starts))
  square = jnp.maximum(dy**2 + dx**2, 1e-6)
  along = ((rows - y) * dy + (columns - x) * dx) / square
  along = jnp.clip(along, 0, 1)
  away = (rows - y - along * dy) ** 2 + (columns - x - along * dx) ** 2
  return (away <= radii[:, None, None] ** 2) & (radii[:, None, None] > 0)


def _span(keys: Array, side: int) -> tuple[Array, Array]:
  """A length from a quarter to a half of a side, and where it begins."""
  low, high = max(1, side // 4), max(1, side // 2)
  length = jax.random.randint(keys[0], (), low, high + 1)
  return length, jax.random.randint(keys[1], (), 0, side - length + 1)


def _box(top, left, tall, wide, height: int, width: int) -> Array:
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
  inside = (rows >= top) & (rows < top + tall)
  inside &= (columns >= left) & (columns < left + wide)
  return inside.astype(jnp.float32)


MASKS: Mapping[str, Callable[[Array, int, int, float], Array]] = {
  'centre': centre,
  'box': box,
  'strokes': _strokes(STROKES['thick']),
  'medium_strokes': _strokes(STROKES['medium']),
  'thin_strokes': _strokes(STROKES['thin']),
  'pixels': pixels,
  'mixed': mixed,
}
