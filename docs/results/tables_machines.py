"""The tables of dry runs: what a training step needs on which machine."""

from tables import Column, Row, Table, code

_GIB, _MIB = 2**30, 2**20
_SHORT = {'all-reduce': 'sum', 'reduce-scatter': 'sum, split'}
_SHORT |= {'all-gather': 'gather'}
_RECIPES = 'imagenet256:'
# Images that a prior is trained on: 300 epochs of ImageNet (LlamaGen, arXiv
# 2406.06525), and 80,000 steps of 1,024 (LightningDiT, arXiv 2501.01423).
_IMAGES = {'prior:ar+L': 300 * 1_281_167, 'prior:flow+XL': 80_000 * 1_024}


def by_config(rows: list[Row]) -> list[Row]:
  """Returns the rows of configs, those of one config together."""
  others = _RECIPES, *_IMAGES
  rows = [row for row in rows if not row['name'].startswith(others)]
  return sorted(map(_said, rows), key=lambda row: row['config'])


def recipes(rows: list[Row]) -> list[Row]:
  """Returns the rows of recipes, those of one recipe together."""
  rows = [row for row in rows if row['name'].startswith(_RECIPES)]
  return sorted(map(_said, rows), key=lambda row: row['config'])


def priors(rows: list[Row]) -> list[Row]:
  """Returns the rows of priors, with the hours that their recipes take."""
  rows = [row for row in rows if row['name'].startswith(tuple(_IMAGES))]
  return sorted(map(_of_prior, rows), key=lambda row: row['config'])


def _of_prior(row: Row) -> Row:
  seconds, at_peak = row['seconds_by_cycles'], row['seconds_at_peak']
  steps = _IMAGES[row['name'].split()[0]] / row['batch_size']
  hours = steps * (seconds or at_peak) / 3600
  return {
    **_said(row),
    'config': row['name'].replace(f' {row["machine"]}', ''),
    'share': seconds and f'{at_peak / seconds:.0%}',
    'hours': f'{"" if seconds else "> "}{hours:.1f}',
  }


def _said(row: Row) -> Row:
  """Gives a row what the tables say of it."""
  seconds = row['seconds_by_cycles']
  room = 'does not fit' if row['too_large'] else f'of {_gib(row["memory"])}'
  parts = f'{_gib(row["state_bytes"])} + {_gib(row["temporary_bytes"])}'
  ways = row['mesh']['data'] * row['mesh']['fsdp']
  fsdp = row['mesh']['fsdp']
  return {
    **row,
    'config': row['name'].removeprefix(_RECIPES).split()[0]
    + (f' fsdp={fsdp}' if fsdp > 1 else ''),
    'images': row['batch_size'] // ways,
    'parts': f'{parts} {room}',
    'needed': f'{_gib(row["total_bytes"])} {room}',
    'tflop': row['flops'] and row['flops'] / 1e12,
    'at_peak': row['seconds_at_peak'] and 1e3 * row['seconds_at_peak'],
    'by_cycles': seconds and 1e3 * seconds,
    'rate': seconds and row['batch_size'] / seconds,
    'exchanged': '; '.join(
      f'{x["count"]} {_SHORT.get(kind, kind)} {x["bytes"] / _MIB:.1f}'
      for kind, x in row['collectives'].items()
    ),
  }


def _gib(size: int | None) -> str:
  return '?' if size is None else f'{size / _GIB:.2f}'


TABLES = {
  'dry-run': Table(
    'dry-run',
    (
      Column('config', 'config', code),
      Column('machine', 'machine', code),
      Column('images a device', 'images'),
      Column('state + temporaries, GiB', 'parts'),
      Column('TFLOP', 'tflop', '.3g'),
      Column('ms at the peak', 'at_peak', '.3g'),
      Column('ms by cycles', 'by_cycles', '.3g'),
      Column('images a second', 'rate', ',.0f'),
      Column('collectives, MiB', 'exchanged'),
    ),
    by_config,
  ),
  'dry-run-recipes': Table(
    'dry-run',
    (
      Column('recipe', 'config', code),
      Column('machine', 'machine', code),
      Column('images a device', 'images'),
      Column('GiB a device', 'needed'),
      Column('TFLOP a device', 'tflop', '.3g'),
      Column('ms at the peak', 'at_peak', '.3g'),
      Column('ms by cycles', 'by_cycles', '.3g'),
      Column('collectives, MiB', 'exchanged'),
    ),
    recipes,
  ),
  'dry-run-priors': Table(
    'dry-run',
    (
      Column('prior', 'config', code),
      Column('machine', 'machine', code),
      Column('images a device', 'images'),
      Column('state + temporaries, GiB', 'parts'),
      Column('TFLOP', 'tflop', '.3g'),
      Column('ms at the peak', 'at_peak', '.3g'),
      Column('ms by cycles', 'by_cycles', '.3g'),
      Column('of the peak', 'share'),
      Column('hours of the recipe', 'hours'),
      Column('collectives, MiB', 'exchanged'),
    ),
    priors,
  ),
}
