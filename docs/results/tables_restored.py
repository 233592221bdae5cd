"""The tables of restorations by models at equal bits: see tables.py."""

from collections.abc import Callable
from typing import NamedTuple

from tables import Column, Row, Table, code, rate, signed
from tables_restoration import METHODS

COPY = 'clean'
TASKS = {
  'superres 2': 'superres ×2',
  'superres 4': 'superres ×4',
  'inpaint centre': 'centre',
  'inpaint strokes': 'strokes',
}
SENT = 'webp_small', 'photo_codec_small'


class Line(NamedTuple):
  """What a line of a table is of: a bottleneck or a method, and its bits."""

  name: str
  is_model: bool
  bits: str
  asked: float  # bits per pixel; 0 without any, infinity where continuous


def line_of(row: Row) -> Line:
  asked = row['asked_bits_per_pixel']
  if 'bottleneck' in row:
    bits = 'continuous' if asked is None else rate(asked)
    return Line(code(row['bottleneck']), True, bits, asked or float('inf'))
  method = row['method']
  name = METHODS.get(method, method)
  if method in SENT:
    return Line(name, False, f'at most {rate(asked)}', asked)
  return Line(name, False, 'none', 0)


def by_line(rows: list[Row], metric: str) -> dict[Line, Row]:
  """Returns a metric, or PSNR, by line and task; models first, rate by rate."""
  found: dict[Line, Row] = {}
  for row in rows:
    values = row['results'].get(metric) or row['results'].get('psnr')
    # That of super-resolution is what bicubic makes.
    enlarged = row.get('method') == 'input' and 'superres' in row['task']
    if values and not enlarged:
      found.setdefault(line_of(row), {})[row['task']] = values['mean']
  best = lambda x: (  # noqa: E731
    not x[0].is_model,
    -x[0].asked,
    *(-x[1].get(task, 0) for task in TASKS),
  )
  return dict(sorted(found.items(), key=best))


def filled(line: Line, values: Row) -> Row:
  return {'name': line.name, 'bits': line.bits, **values}


def overview(rows: list[Row]) -> list[Row]:
  """PSNR; of inpainting that of the holes. What was sent has the bits it took,
  task by task.
  """
  spent: dict[Line, list[str]] = {}
  for row in sorted(rows, key=lambda x: x['task']):
    if row.get('method') in SENT and 'bits_per_pixel' in row['results']:
      mean = row['results']['bits_per_pixel']['mean']
      spent.setdefault(line_of(row), []).append(f'{mean:.2f}')
  return [
    filled(line._replace(bits=', '.join(spent.get(line, [line.bits]))), x)
    for line, x in by_line(rows, 'psnr_hole').items()
  ]


def above(rows: list[Row]) -> list[Row]:
  """How far models are above the best method without one, in dB."""
  found = by_line(rows, 'psnr_hole')
  methods = [x for line, x in found.items() if not line.is_model]
  best = {
    k: max(x[k] for x in methods if k in x)
    for k in TASKS
    if any(k in x for x in methods)
  }
  return [
    filled(line, {k: x[k] - best[k] for k in best if k in x})
    for line, x in found.items()
    if line.is_model and x.keys() != {COPY}
  ]


def costs(rows: list[Row]) -> list[Row]:
  """What the code costs, and what the task does, in PSNR of whole images."""
  found = {k: x for k, x in by_line(rows, 'psnr').items() if k.is_model}
  free = next(x for line, x in found.items() if line.bits == 'continuous')
  made = []
  for line, values in found.items():
    if values is free:
      lost = {k: free[COPY] - free[k] for k in TASKS if k in free}
      made.append(filled(line._replace(name='the task: `none`'), lost))
    else:
      lost = {k: free[k] - x for k, x in values.items() if k in free}
      made.append(filled(line._replace(name=f'the code: {line.name}'), lost))
  return made


def columns(
  head: str, style: str | Callable, *tasks: str
) -> tuple[Column, ...]:
  title = {COPY: 'copy of a clean image', **TASKS}
  return (
    Column(head, 'name'),
    Column('bits per pixel', 'bits'),
    *(Column(title[x], x, style) for x in tasks),
  )


OVERVIEW = columns('model or method', '.2f', COPY, *TASKS)
ABOVE = columns('model', signed, *TASKS)
COSTS = columns('cost of', '.2f', COPY, *TASKS)

TABLES = {
  'cifar10-restorations': Table('cifar10-restorations', OVERVIEW, overview),
  'cifar10-restorations-above': Table('cifar10-restorations', ABOVE, above),
  'cifar10-restorations-costs': Table('cifar10-restorations', COSTS, costs),
  'clothing-restorations': Table('clothing-restorations', OVERVIEW, overview),
  'clothing-restorations-above': Table('clothing-restorations', ABOVE, above),
  'clothing-restorations-costs': Table('clothing-restorations', COSTS, costs),
  'cifar10-restorations-f2': Table(
    'cifar10-restorations-f2',
    columns('model or method', '.2f', COPY, 'superres 2'),
    overview,
  ),
}
