"""Tables of restorations: what coding costs, what the task, and both.

Results are dictionaries as in results.json. A table is a list of rows, lists of
cells, of which the first is the head.
"""

from collections.abc import Mapping
from typing import Any

from lasers_jax.evaluation.protocol import mean_of
from lasers_jax.metrics.registry import known
from lasers_jax.report.comparison import line

Results = Mapping[str, Any]
Table = list[list[str]]

_GROUPS = {
  'clean': 'copy of a clean image',
  'pasted': 'known pixels pasted',
  'initial': 'first estimate',
}
_DRAWS = {
  'psnr': ('PSNR of a draw in dB', 2),
  'psnr_of_mean': ('PSNR of their mean in dB', 2),
  'psnr_of_best': ('PSNR of the best in dB', 2),
  'spread': ('deviation, of 255', 2),
  'consistency': ('consistency in dB', 2),
  'lpips_between': ('LPIPS between draws', 4),
}


def markdown(named: Mapping[str, Results]) -> str:
  """Returns the tables of models as Markdown; '' where none restores.

  Args:
    named: results by the names of the models.
  """
  restoring = {k: x for k, x in named.items() if 'input' in x}
  if not restoring:
    return ''
  protocol = next(iter(restoring.values()))['protocol']['restoration']
  lines = ['', f'{protocol.capitalize()}.']
  for table in tables(restoring):
    head, *rows = table
    shown = [head, ['---'] * len(head), *rows]
    lines += ['', *map(line, shown)]
  absent = missing(restoring)
  lines += [''] * bool(absent)
  lines += [f'* {name}: {reason}' for name, reason in absent.items()]
  return '\n'.join(lines) + '\n'


def tables(named: Mapping[str, Results]) -> list[Table]:
  """Returns the tables of models that restore, and of methods without one."""
  found = [of_models(named), without_a_model(named)]
  drawn = {k: x['draws'] for k, x in named.items() if 'draws' in x}
  return [*found, of_draws(drawn)] if drawn else found


def of_models(named: Mapping[str, Results]) -> Table:
  """Returns PSNR of restorations, and of copies of clean images."""
  groups = [k for k in _GROUPS if any(k in x for x in named.values())]
  head = ['PSNR in dB', 'bits per pixel', 'restoration']
  rows = [[*head, *(_GROUPS[k] for k in groups)]]
  for name, results in named.items():
    bits = results['bits_per_pixel']['fixed_length']
    cells = [name, bits if isinstance(bits, str) else f'{bits:.4g}']
    for group in (results, *(results.get(k, {}) for k in groups)):
      cells.append(f'{mean_of(group["psnr"]):.2f}' if 'psnr' in group else '')
    rows.append(cells)
  return rows


def without_a_model(named: Mapping[str, Results]) -> Table:
  """Returns all metrics of the degraded images and of the methods."""
  rows = {'input': next(iter(named.values()))['input'], **_baselines(named)}
  rows = {k: x for k, x in rows.items() if 'missing' not in x}
  metrics = known({name for x in rows.values() for name in x})
  head = ['without a model', *(x.heading for x in metrics.values())]
  sent = any('bits_per_pixel' in x for x in rows.values())
  table = [[*head, 'bits per pixel'] if sent else head]
  for name, values in rows.items():
    cells = [name.replace('_', ' ')]
    cells += [
      x.number(mean_of(values[k])) if k in values else ''
      for k, x in metrics.items()
    ]
    if sent:
      bits = values.get('bits_per_pixel')
      cells.append(f'{mean_of(bits):.3g}' if bits else '')
    table.append(cells)
  return table


def missing(named: Mapping[str, Results]) -> dict[str, str]:
  """Returns the methods that were not measured, with the reason."""
  found = _baselines(named).items()
  return {
    name.replace('_', ' '): x['missing'] for name, x in found if 'missing' in x
  }


def of_draws(named: Mapping[str, Results]) -> Table:
  """Returns the quality of draws of the same restorations, by model."""
  kept = [k for k in _DRAWS if any(k in x for x in named.values())]
  table = [['draws', *(_DRAWS[k][0] for k in kept)]]
  for name, found in named.items():
    count = f'{name}: {found["draws"]} of {found["images"]} images'
    cells = [f'{found[k]:.{_DRAWS[k][1]}f}' if k in found else '' for k in kept]
    table.append([count, *cells])
  return table


def _baselines(named: Mapping[str, Results]) -> Results:
  found = (x['baselines'] for x in named.values() if 'baselines' in x)
  return next(found, {})
