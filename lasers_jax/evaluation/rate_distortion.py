"""Measures rate and distortion of codecs on images, by the files they write."""

import functools
import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from lasers_jax.core.images import to_float
from lasers_jax.core.padding import pad_one
from lasers_jax.evaluation.protocol import check_size, compare
from lasers_jax.metrics import statistics
from lasers_jax.metrics.registry import ALWAYS, Metrics

# Settings of Pillow, from small files to large ones: all with half the sides of
# colours (4:2:0), but where the name says otherwise.
CLASSICAL = {
  'JPEG': (1, 3, 5, 8, 12, 18, 25, 35, 50, 65, 80, 90, 95),
  'WEBP': (0, 2, 5, 10, 20, 35, 50, 65, 80, 90, 95),
  'AVIF': (5, 15, 25, 35, 45, 55, 65, 75, 85, 92),
  'AVIF 4:4:4': (5, 15, 25, 35, 45, 55, 65, 75, 85, 92),
}


class Coder(NamedTuple):
  """A codec of images uint8 [h, w, 3]: bytes of an image, image of bytes."""

  name: str
  setting: str
  encode: Callable[[np.ndarray], bytes]
  decode: Callable[[bytes], np.ndarray]


def classical() -> Iterator[Coder]:
  """Yields the codecs of Pillow, at several qualities each."""
  for name, qualities in CLASSICAL.items():
    for quality in qualities:
      yield by_pillow(name, quality)


def by_pillow(name: str, quality: int) -> Coder:
  """Returns a codec of Pillow by a name in CLASSICAL, at a quality."""
  encode = functools.partial(_encode, name, quality)
  return Coder(name, f'quality {quality}', encode, _decode)


def _encode(name: str, quality: int, image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  # Optimized Huffman tables make small files smaller.
  more: dict[str, Any] = {'optimize': True} if name == 'JPEG' else {}
  kind, _, subsampling = name.partition(' ')
  if subsampling:
    more['subsampling'] = subsampling
  Image.fromarray(image).save(buffer, kind, quality=quality, **more)
  return buffer.getvalue()


def _decode(data: bytes) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


def measure(
  coder: Coder,
  images: Sequence[np.ndarray],
  metrics: Metrics = ALWAYS,
) -> dict[str, Any]:
  """Measures a codec on images, and returns a row of results.

  Bits count all bytes of the files, over all pixels. Quality is a mean of one
  value an image. Times are seconds a megapixel; the first image of each size is
  coded twice, so that compilation is not counted.

  Args:
    images: uint8 [h, w, 3].
    metrics: of single images.

  Raises:
    InputError: an image is too small for a metric.
  """
  values: dict[str, list[float]] = {}
  sizes, pixels, seconds = 0, 0, np.zeros(2)
  met = set()
  for image in images:
    check_size(*image.shape[:2], metrics)
    if image.shape not in met:  # compiles
      coder.decode(coder.encode(image))
      met.add(image.shape)
    times = [time.perf_counter()]
    data = coder.encode(image)
    times.append(time.perf_counter())
    reconstruction = coder.decode(data)
    times.append(time.perf_counter())
    for name, value in _compare(image, reconstruction, metrics).items():
      values.setdefault(name, []).append(value)
    sizes += len(data)
    pixels += image.shape[0] * image.shape[1]
    seconds += np.diff(times)
  encode, decode = 1e6 / pixels * seconds
  return {
    'codec': coder.name,
    'setting': coder.setting,
    'bits_per_pixel': 8 * sizes / pixels,
    'bytes': sizes,
    **{name: statistics.summarize(np.array(x)) for name, x in values.items()},
    'seconds_per_megapixel': {'encode': encode, 'decode': decode},
  }


def _compare(image, reconstruction, metrics: Metrics) -> dict[str, float]:
  (images, sizes), (others, _) = pad_one(image), pad_one(reconstruction)
  values = _values(metrics.modules, metrics.params, images, others, sizes)
  return {name: float(x[0]) for name, x in values.items()}


@functools.partial(jax.jit, static_argnums=0)
def _values(modules, params, images, reconstructions, sizes):
  pair = to_float(images), to_float(reconstructions)
  return compare(modules, params, *pair, sizes)
