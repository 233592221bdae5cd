"""Rate and distortion of codecs on the same images, by the files they write."""

import functools
import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from lasers_jax.evaluation import metrics
from lasers_jax.evaluation.comparison import line
from lasers_jax.evaluation.measures import MEASURES, NOTHING_MORE, Measures
from lasers_jax.evaluation.protocol import check_size
from lasers_jax.padding import pad_one
from lasers_jax.training.step import to_float

# Settings of Pillow, from small files to large ones.
CLASSICAL = {
  'JPEG': (1, 3, 5, 8, 12, 18, 25, 35, 50, 65, 80, 90, 95),
  'WEBP': (0, 2, 5, 10, 20, 35, 50, 65, 80, 90, 95),
  'AVIF': (5, 15, 25, 35, 45, 55, 65, 75, 85, 92),
}


class Coder(NamedTuple):
  """Something that writes images uint8 [h, w, 3] to bytes, and reads them."""

  name: str
  setting: str
  encode: Callable[[np.ndarray], bytes]
  decode: Callable[[bytes], np.ndarray]


def classical() -> Iterator[Coder]:
  """The codecs of Pillow, at several qualities each."""
  for name, qualities in CLASSICAL.items():
    for quality in qualities:
      encode = functools.partial(_encode, name, quality)
      yield Coder(name, f'quality {quality}', encode, _decode)


def _encode(name: str, quality: int, image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  # Optimized Huffman tables make small files smaller.
  more = {'optimize': True} if name == 'JPEG' else {}
  Image.fromarray(image).save(buffer, name, quality=quality, **more)
  return buffer.getvalue()


def _decode(data: bytes) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


def measure(
  coder: Coder,
  images: Sequence[np.ndarray],
  measures: Measures = NOTHING_MORE,
) -> dict[str, Any]:
  """Codes images by themselves: a row of results.

  Bits are those of the files, all bytes counted, over all pixels; quality is a
  mean of one value an image; times are seconds a megapixel, of the second pass
  over an image of a size that is met for the first time.

  Args:
    images: uint8 [h, w, 3].
    measures: whose distances are measured besides PSNR and SSIM.

  Raises:
    InputError: an image is too small for a measure.
  """
  values: dict[str, list[float]] = {}
  sizes, pixels, seconds = 0, 0, np.zeros(2)
  met = set()
  for image in images:
    check_size(*image.shape[:2], measures)
    if image.shape not in met:  # compiles
      coder.decode(coder.encode(image))
      met.add(image.shape)
    times = [time.perf_counter()]
    data = coder.encode(image)
    times.append(time.perf_counter())
    copy = coder.decode(data)
    times.append(time.perf_counter())
    for name, value in _compare(image, copy, measures).items():
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
    **{name: metrics.summarize(np.array(x)) for name, x in values.items()},
    'seconds_per_megapixel': {'encode': encode, 'decode': decode},
  }


def _compare(image, copy, measures: Measures) -> dict[str, float]:
  (images, sizes), (copies, _) = pad_one(image), pad_one(copy)
  pair = (images, copies) if sizes is None else (images, copies, sizes)
  found = {'psnr': metrics.psnr(*pair)[0], 'ssim': metrics.ssim(*pair)[0]}
  for name, distance in measures.distances.items():
    found[name] = _distance(distance.module, distance.params, *pair)
  return {name: float(x) for name, x in found.items()}


@functools.partial(jax.jit, static_argnums=0)
def _distance(module, params, images, copies, *sizes):
  pair = to_float(images), to_float(copies)
  return module.apply({'params': params}, *pair, *sizes)[0]


def above(rows: Sequence[dict], other: str) -> list[float | None]:
  """How far the PSNR of each row is above that of another codec, in dB.

  At equal bits per pixel, on straight lines between that codec's points; None
  where it has none so small or so large.
  """
  points = sorted(
    (row['bits_per_pixel'], row['psnr']['mean'])
    for row in rows
    if row['codec'] == other
  )
  if not points:
    return [None] * len(rows)
  bits, psnr = np.transpose(points)
  found = []
  for row in rows:
    rate = row['bits_per_pixel']
    inside = bits[0] <= rate <= bits[-1]
    gain = row['psnr']['mean'] - np.interp(rate, bits, psnr)
    found.append(float(gain) if inside else None)
  return found


def table(rows: Sequence[dict]) -> str:
  """Writes rows as Markdown, codec by codec, the smallest files first."""
  more = [x for x in MEASURES if x in rows[0]]
  names = [x for x in CLASSICAL if any(row['codec'] == x for row in rows)]
  gains = {name: above(rows, name) for name in names}
  head = [
    'codec', 'setting', 'bits per pixel', 'PSNR in dB (95 %)', 'SSIM', *more,
    *(f'dB above {name}' for name in names),
    'encode, s/MP', 'decode, s/MP',
  ]  # fmt: skip
  lines = [line(head), line(['---'] * len(head))]
  order = list(dict.fromkeys(row['codec'] for row in rows))
  for i, row in sorted(
    enumerate(rows),
    key=lambda x: (order.index(x[1]['codec']), x[1]['bits_per_pixel']),
  ):
    psnr, seconds = row['psnr'], row['seconds_per_megapixel']
    cells = [
      row['codec'],
      row['setting'],
      f'{row["bits_per_pixel"]:.4g}',
      metrics.say_mean(psnr),
      f'{row["ssim"]["mean"]:.4f}',
      *(f'{row[name]["mean"]:.4f}' for name in more),
      *(_signed(gains[name][i], row['codec'] == name) for name in names),
      f'{seconds["encode"]:.3g}',
      f'{seconds["decode"]:.3g}',
    ]
    lines.append(line(cells))
  return '\n'.join(lines) + '\n'


def _signed(value: float | None, own: bool) -> str:
  return '' if own or value is None else f'{value:+.2f}'


def plot(rows: Sequence[dict], path: str) -> None:
  """Draws PSNR and SSIM over bits per pixel, a curve for each codec."""
  # Here, since numbers are there without it.
  from matplotlib.figure import Figure

  figure = Figure(figsize=(11, 5), layout='constrained')
  for axes, name, label in zip(
    figure.subplots(1, 2), ('psnr', 'ssim'), ('PSNR in dB', 'SSIM'), strict=True
  ):
    for codec in dict.fromkeys(row['codec'] for row in rows):
      own = [row for row in rows if row['codec'] == codec]
      points = sorted((row['bits_per_pixel'], row[name]['mean']) for row in own)
      style = dict(lw=1, ms=3) if codec in CLASSICAL else dict(lw=2, ms=6)
      axes.plot(*zip(*points, strict=True), 'o-', label=codec, **style)
    axes.set(xlabel='bits per pixel, of files', ylabel=label, xscale='log')
    axes.grid(alpha=0.3, which='both')
  axes.legend()
  figure.savefig(path, dpi=120)
