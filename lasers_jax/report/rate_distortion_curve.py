"""Draws the table and the curves of codecs on the same images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lasers_jax.core.storage import written_whole
from lasers_jax.evaluation.rate_distortion import CLASSICAL
from lasers_jax.metrics import statistics
from lasers_jax.metrics.registry import METRICS, known
from lasers_jax.report.comparison import line


def above(rows: Sequence[dict], other: str) -> list[float | None]:
  """Returns the PSNR of each row above that of another codec, in dB.

  The other codec is interpolated linearly at the same bits per pixel; None
  where its points do not reach so far.
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
  """Returns rows as Markdown, codec by codec, the smallest files first."""
  more = known(rows[0].keys() - {'psnr'})
  names = [x for x in CLASSICAL if any(row['codec'] == x for row in rows)]
  gains = {name: above(rows, name) for name in names}
  head = [
    'codec', 'setting', 'bits per pixel', 'PSNR in dB (95 %)',
    *(metric.heading for metric in more.values()),
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
      statistics.describe_mean(psnr),
      *(metric.number(row[name]['mean']) for name, metric in more.items()),
      *(_signed(gains[name][i], row['codec'] == name) for name in names),
      f'{seconds["encode"]:.3g}',
      f'{seconds["decode"]:.3g}',
    ]
    lines.append(line(cells))
  return '\n'.join(lines) + '\n'


def _signed(value: float | None, own: bool) -> str:
  return '' if own or value is None else f'{value:+.2f}'


def rate_table(rates: Sequence[dict]) -> str:
  """Returns rates at equal PSNR as Markdown: `bjontegaard.against`."""
  names = list(rates[0]['others'])
  head = ['codec', *(f'bits against {name}' for name in names)]
  lines = [line(head), line(['---'] * len(head))]
  for row in rates:
    cells = [_percent(row, name) for name in names]
    lines.append(line([row['codec'], *cells]))
  return '\n'.join(lines) + '\n'


def _percent(row: dict, other: str) -> str:
  value = row['others'][other]
  if value is None or row['codec'] == other:
    return ''
  return f'{100 * value:+.1f} %'


def plot(rows: Sequence[dict], path: str, others: Sequence[dict] = ()) -> None:
  """Draws PSNR and SSIM over bits per pixel, a curve for each codec.

  Args:
    others: rows of codecs that were measured elsewhere, in thin lines; they
      may lack SSIM.
  """
  # Imported here: a table does not need it.
  from matplotlib.figure import Figure

  figure = Figure(figsize=(11, 5), layout='constrained')
  for axes, name in zip(figure.subplots(1, 2), ('psnr', 'ssim'), strict=True):
    label = METRICS[name].heading
    axes.set(xlabel='bits per pixel, of files', ylabel=label, xscale='log')
    for codec in dict.fromkeys(row['codec'] for row in rows):
      style: dict[str, Any] = dict(marker='o', lw=2, ms=6)
      if codec in CLASSICAL:
        style.update(lw=1, ms=3)
      _draw(axes, rows, codec, name, style)
    ends = axes.get_xlim(), axes.get_ylim()
    for i, codec in enumerate(dict.fromkeys(row['codec'] for row in others)):
      dashes = ('--', '-.', ':')[i % 3]
      style = dict(lw=0.8, ls=dashes, color=str(0.25 + 0.15 * (i % 4)))
      _draw(axes, others, codec, name, style)
    if others:  # as far as what was measured here
      axes.set(xlim=ends[0], ylim=ends[1])
    axes.grid(alpha=0.3, which='both')
    axes.legend(loc='lower right', fontsize='small')
  with written_whole(path) as file:
    figure.savefig(file, format='png', dpi=120)


def _draw(axes, rows, codec: str, name: str, style: dict[str, Any]) -> None:
  """Draws the curve of a codec, where it has the metric."""
  points = sorted(
    (row['bits_per_pixel'], row[name]['mean'])
    for row in rows
    if row['codec'] == codec and isinstance(row.get(name), dict)
  )
  if points:
    axes.plot(*zip(*points, strict=True), label=codec, **style)
