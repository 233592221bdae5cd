"""Draws small charts for a report, as SVG text."""

import contextlib
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import (
  FuncFormatter,
  LogLocator,
  MaxNLocator,
  NullLocator,
)

# Colours that people who see fewer colours tell apart (M. Okabe and K. Ito).
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')
INK, FAINT = '#333333', '#888888'
SIZE = 4.2, 2.7  # inches: small, so that a phone shows it at full size
MOST_POINTS = 400  # of a curve
MOST_ROWS = 8  # of a chart of histograms
_STYLE = {
  'axes.edgecolor': FAINT,
  'axes.grid': True,
  'axes.labelcolor': INK,
  'axes.prop_cycle': matplotlib.cycler(color=COLOURS),
  'axes.spines.right': False,
  'axes.spines.top': False,
  'font.size': 9,
  'grid.alpha': 0.25,
  'legend.edgecolor': 'none',
  'legend.fontsize': 8,
  'lines.linewidth': 1.4,
  'svg.fonttype': 'none',
  'svg.hashsalt': 'report',  # the same chart twice is the same text
  'text.color': INK,
  'xtick.color': INK,
  'ytick.color': INK,
}

Curve = tuple[Sequence[float], Sequence[float]]


@contextlib.contextmanager
def _drawing(width=SIZE[0], height=SIZE[1]):
  """Yields axes, and a list that gets the SVG text."""
  text = []
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.21, 0.18, 0.74, 0.76))
    axes.set_axisbelow(True)
    axes.yaxis.set_label_coords(-0.225, 0.5)  # whatever the ticks say
    yield axes, text
    buffer = io.StringIO()
    figure.savefig(buffer, format='svg', metadata={'Date': None})
  _, start, rest = buffer.getvalue().partition('<svg')
  text.append(start + rest)


def curves(
  lines: Mapping[str, Curve],
  ylabel: str,
  log: bool = False,
  mark: float | None = None,
) -> str:
  """Draws curves over the steps of training.

  Args:
    lines: steps and values of each curve, by name. Few points get dots; many
      are drawn as means of neighbours. Values that are not finite are skipped.
    log: whether the axis of values is logarithmic, where they are positive
      and differ by more than a factor of five.
    mark: a step to mark.
  """
  with _drawing() as (axes, text):
    for name, curve in lines.items():
      x, y = thin(*curve)
      axes.plot(x, y, '.-' if len(x) < 30 else '-', label=name)
    if mark is not None:
      axes.axvline(mark, c=FAINT, lw=0.8, ls='--')
    low, high = axes.dataLim.intervaly
    if log and 0 < 5 * low < high:
      _use_log(axes)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set(xlabel='step of training', ylabel=ylabel)
    if len(lines) > 1:
      axes.legend(loc='best')
  return text[0]


def thin(x: Sequence[float], y: Sequence[float]) -> tuple:
  """Reduces a curve to at most 400 points, each a mean of neighbours."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  x, y = x[np.isfinite(y)], y[np.isfinite(y)]
  each = -(-len(x) // MOST_POINTS)
  if each <= 1:
    return x, y
  starts = np.arange(0, len(x), each)
  counts = np.diff([*starts, len(x)])
  return tuple(np.add.reduceat(v, starts) / counts for v in (x, y))


def histogram(
  values: np.ndarray, xlabel: str, marks: Mapping[str, Sequence[float]]
) -> str:
  """Draws a histogram of values of images; marks some values on the axis."""
  values = values[np.isfinite(values)]
  with _drawing() as (axes, text):
    axes.stairs(*np.histogram(values, _bins(values)), fill=True, alpha=0.75)
    for (name, at), colour in zip(marks.items(), COLOURS[1:], strict=False):
      at = [x for x in at if np.isfinite(x)]
      axes.plot(at, [0] * len(at), '^', c=colour, label=name, clip_on=False)
    axes.set(xlabel=xlabel, ylabel='images')
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if marks:
      axes.legend(loc='upper right')
  return text[0]


def usage(counts: np.ndarray) -> str:
  """Draws the fraction of each code that is used, the most used first."""
  fractions = 100 * np.sort(counts[counts > 0])[::-1] / max(1, counts.sum())
  # Of a large codebook, so many ranks that no step of the curve is lost.
  ranks = np.arange(1, len(fractions) + 1)
  if len(ranks) > 1000:
    ranks = np.unique(np.geomspace(1, len(ranks), 800).astype(int))
  with _drawing() as (axes, text):
    axes.plot(ranks, fractions[ranks - 1], '.-' if len(ranks) < 30 else '-')
    level = 100 / len(counts)
    axes.axhline(level, c=COLOURS[1], lw=1, ls='--', label='all alike')
    _use_log(axes)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(xlabel='code, by rank', ylabel='fraction of all uses in %')
    axes.legend(loc='upper right')
  return text[0]


def times_used(counts: np.ndarray) -> str:
  """Draws a histogram of codes by how often they are used."""
  with _drawing() as (axes, text):
    axes.stairs(*np.histogram(counts, _bins(counts)), fill=True, alpha=0.75)
    axes.axvline(counts.mean(), c=COLOURS[1], lw=1, ls='--', label='all alike')
    axes.set(xlabel='uses over the split', ylabel='codes')
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(loc='upper right')
  return text[0]


def coefficients(values: np.ndarray) -> str:
  """Draws a histogram of coefficients [N, S] for each step of the pursuit.

  Of more than eight steps, eight that are evenly spaced.
  """
  values, steps = np.nan_to_num(values), values.shape[1]
  rows = np.unique(np.linspace(0, steps - 1, min(steps, MOST_ROWS)).round())
  widest = np.percentile(np.abs(values), 99.9) or 1.0
  edges = np.linspace(-widest, widest, 82)
  middles = (edges[1:] + edges[:-1]) / 2
  with _drawing(SIZE[0], 1 + 0.42 * len(rows)) as (axes, text):
    for place, step in enumerate(rows.astype(int)):
      own = values[:, step]
      height, _ = np.histogram(np.clip(own, -widest, widest), edges)
      top = -place + 0.85 * height / max(1, height.max())
      axes.fill_between(
        middles, -place, top, step='mid', color=COLOURS[0], alpha=0.75, lw=0
      )
      size = np.sqrt(np.mean(own**2))
      axes.text(1.08 * widest, -place + 0.2, f'rms {size:.3g}', fontsize=8)
    axes.set_yticks(-np.arange(len(rows)), [f'step {s + 1:.0f}' for s in rows])
    axes.set(xlabel='coefficient of an atom of length 1')
    axes.set(xlim=(-widest, 1.5 * widest), ylim=(0.05 - len(rows) + 0.9, 1))
  return text[0]


def over_steps(
  steps: Sequence[int],
  values: Sequence[float],
  ylabel: str,
  log: bool = False,
  level: float | None = None,
) -> str:
  """Draws values over the number of sampling steps.

  Args:
    level: the value of the first estimate, which takes no steps; it is drawn as
      a dashed line.
  """
  with _drawing() as (axes, text):
    axes.plot(steps, values, 'o-', ms=4, label='samples')
    if level is not None:
      axes.axhline(level, c=COLOURS[1], lw=1.2, ls='--', label='first estimate')
      axes.legend(loc='best')
    axes.set_xscale('log')
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    if log:
      _use_log(axes)
    axes.set(xlabel='sampling steps', ylabel=ylabel)
  return text[0]


def heat(values: np.ndarray, top: float) -> np.ndarray:
  """Colours values [..., h, w] from 0 to `top`: uint8 [..., h, w, 3]."""
  fractions = np.clip(values / max(top, 1e-12), 0, 1)
  colours = matplotlib.colormaps['inferno'](fractions)[..., :3]
  return np.round(255 * colours).astype(np.uint8)


def _bins(values: np.ndarray) -> np.ndarray:
  """Returns edges of at most 50 bins; whole numbers get bins of one or more."""
  if not values.size:
    return np.linspace(0, 1, 11)
  low, high = values.min(), values.max()
  if values.dtype.kind in 'iu':
    width = -(-(high - low + 1) // 50)
    return np.arange(low, high + width + 1, width) - 0.5
  count = int(np.clip(2 * np.sqrt(values.size), 10, 50))
  if high - low < 1e-9 * max(1.0, abs(high)):
    low, high = low - 0.5, high + 0.5
  return np.linspace(low, high, count + 1)


def _use_log(axes) -> None:
  """Makes the axis of values logarithmic, with ticks such as 0.05 and 20."""
  axes.set_yscale('log')
  low, high = axes.get_ylim()
  subs = (1, 2, 5) if high / low < 1e3 else (1,)
  axes.yaxis.set_major_locator(LogLocator(subs=subs))
  axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:g}'))
  axes.yaxis.set_minor_locator(NullLocator())
