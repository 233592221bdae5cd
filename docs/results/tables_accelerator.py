"""The tables of what was measured on an accelerator."""

import statistics

from tables import Column, Row, Table, percent

_PEER, _BOUND = 'plain PyTorch', 'lower bound'


def in_milliseconds(rows: list[Row]) -> list[Row]:
  """Returns medians of the rounds, and medians of ratios within a round."""
  return [
    {
      'shape': row['name'].replace('x', '×'),
      **{k: 1e3 * statistics.median(x) for k, x in row['seconds'].items()},
      'faster': _ratio(row['seconds'], _PEER, 'omp'),
      'slower': _ratio(row['seconds'], 'omp', _BOUND),
      'first': row['first_call']['omp'],
      'same': row['checks'][0],
    }
    for row in rows
  ]


def _ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
  pairs = zip(seconds[name], seconds[base], strict=False)
  return statistics.median(a / b for a, b in pairs)


def by_method(rows: list[Row]) -> list[Row]:
  """Returns a row for each method of each shape."""
  return [
    {'shape': row['name'].replace('x', '×'), 'method': method, **row[method]}
    for row in rows
    for method in ('omp', 'vq')
  ]


TABLES = {
  'accelerator-omp': Table(
    'accelerator-omp',
    (
      Column('N×D×K×S', 'shape'),
      Column('`omp`, ms', 'omp', '.2f'),
      Column('`ols`', 'ols', '.2f'),
      Column('`fast`', 'fast', '.2f'),
      Column('plain PyTorch', _PEER, '.2f'),
      Column('PyTorch : `omp`', 'faster', '.1f'),
      Column('the copy, ms', _BOUND, '.2f'),
      Column('`omp` : copy', 'slower', '.1f'),
      Column('first call, s', 'first', '.1f'),
      Column('= scikit-learn', 'same'),
    ),
    in_milliseconds,
  ),
  'accelerator-codes': Table(
    'accelerator-codes',
    (
      Column('N×D×K×S', 'shape'),
      Column('method', 'method'),
      Column('same as on the CPU', 'same', lambda x: percent(x, 3)),
      Column('others', 'differ'),
      Column('of these ties', 'ties'),
    ),
    by_method,
  ),
  'accelerator-train': Table(
    'accelerator-train',
    (
      Column('step', 'step', ','),
      Column('seconds', 'seconds', '.1f'),
      Column('images a second', 'images_a_second', ',.0f'),
      Column('PSNR in dB', 'psnr', '.2f'),
    ),
  ),
}
