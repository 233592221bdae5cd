"""Results of several bottlenecks side by side: table, curves, images.

A row is a dictionary: bottleneck, asked_bits_per_pixel (None: continuous),
settings, results (as in results.json, or None), error (the reason for None).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lasers_jax.core.storage import written_whole
from lasers_jax.evaluation.protocol import mean_of
from lasers_jax.metrics import statistics
from lasers_jax.metrics.registry import Metric, known
from lasers_jax.report import grids

Row = Mapping[str, Any]

_HEAD = (
  'bottleneck', 'settings', 'parameters', 'bits per pixel',
  'PSNR in dB (95 %)',
)  # fmt: skip
_USE = ('usage', 'perplexity')


def table(rows: Sequence[Row]) -> str:
  """Returns rows as Markdown: rate by rate, the best PSNR first.

  Continuous codes come last, and rows without results below the table.
  """
  done = sorted((row for row in rows if row['results']), key=_order)
  found = {name for row in done for name in row['results']} - {'psnr'}
  more = known(found)
  head = [*_HEAD, *(metric.heading for metric in more.values()), *_USE]
  lines = [line(head), line(['---'] * len(head))]
  lines += [line(_cells(row, more)) for row in done]
  failed = [row for row in rows if row['error']]
  lines += [''] * bool(failed)
  lines += [
    f'* `{row["bottleneck"]}` at {_rate(row)}: {row["error"]}' for row in failed
  ]
  return '\n'.join(lines) + '\n'


def _order(row: Row) -> tuple[float, float]:
  asked = row['asked_bits_per_pixel']
  rate = float('inf') if asked is None else asked
  return rate, -row['results']['psnr']['mean']


def _cells(row: Row, more: Mapping[str, Metric]) -> list[str]:
  results, psnr = row['results'], row['results']['psnr']
  bits = results['bits_per_pixel']['fixed_length']
  used = 'usage' in results
  return [
    f'`{row["bottleneck"]}`',
    describe_settings(row['settings']),
    f'{sum(results["protocol"]["parameters"].values()):,}',
    bits if isinstance(bits, str) else f'{bits:.4g}',
    statistics.describe_mean(psnr),
    *(
      metric.number(mean_of(results[name])) if name in results else ''
      for name, metric in more.items()
    ),
    f'{100 * results["usage"]:.1f} %' if used else '',
    f'{results["perplexity"]:.0f}' if used else '',
  ]


def line(cells: Sequence[str]) -> str:
  """Returns a row of a table in Markdown."""
  return '| ' + ' | '.join(cells) + ' |'


def _rate(row: Row) -> str:
  asked = row['asked_bits_per_pixel']
  return 'continuous' if asked is None else f'{asked:g} bits per pixel'


def describe_settings(fields: Mapping[str, Any]) -> str:
  """Returns fields in a few words: depth=4, inner K=256."""
  parts = []
  for key, value in fields.items():
    if isinstance(value, Mapping):
      parts.append(f'{key} {describe_settings(value)}')
    elif isinstance(value, tuple | list):
      parts.append(f'{key}={"·".join(map(str, value))}')
    else:
      parts.append(f'{key}={value}')
  return ', '.join(parts)


def plot(rows: Sequence[Row], path: str) -> None:
  """Draws PSNR over bits per pixel; a continuous code is a dashed line."""
  # Imported here: a table does not need it.
  import matplotlib
  from matplotlib.figure import Figure

  figure = Figure(figsize=(8, 5), layout='constrained')
  axes = figure.subplots()
  done = [row for row in rows if row['results']]
  names = list(dict.fromkeys(row['bottleneck'] for row in done))
  colours = matplotlib.colormaps['tab20'].colors
  for i, name in enumerate(names):
    colour, marker = colours[i % 20], 'osD^vP*X'[i % 8]
    own = [row for row in done if row['bottleneck'] == name]
    points = sorted(_point(row) for row in own if _point(row))
    if points:
      x, y = zip(*points, strict=True)
      axes.plot(x, y, marker, ls='-', c=colour, label=name)
    for row in own:
      if not _point(row):
        level = row['results']['psnr']['mean']
        label = f'{name}, continuous'
        axes.axhline(level, ls='--', lw=1, c=colour, label=label)
  axes.set(xlabel='bits per pixel, fixed length', ylabel='PSNR in dB')
  axes.grid(alpha=0.3)
  if done:
    figure.legend(loc='outside right upper', fontsize='small')
  with written_whole(path) as file:
    figure.savefig(file, format='png', dpi=120)


def _point(row: Row) -> tuple[float, float] | None:
  bits = row['results']['bits_per_pixel']['fixed_length']
  if isinstance(bits, str):
    return None
  return bits, row['results']['psnr']['mean']


def side_by_side(
  names: Sequence[str],
  reconstructions: Sequence[Sequence[np.ndarray]],
  originals: Sequence[np.ndarray],
) -> np.ndarray:
  """Draws the same images by each model, a row each, below the originals.

  Args:
    names: of the models.
    reconstructions: of each model, uint8 [h, w, 3].
    originals: the images themselves.

  Returns:
    uint8 [H, W, 3].
  """
  rows = [originals, *reconstructions]
  return grids.grid(rows, ['original', *names], pad=4)
