"""Tables of restorations: what coding costs, what the task, and both.

Results are dictionaries as in results.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lasers_jax.evaluation.protocol import mean_of
from lasers_jax.metrics.registry import known
from lasers_jax.report.comparison import line

Results = Mapping[str, Any]

_GROUPS = {
  'clean': 'copy of a clean image',
  'pasted': 'known pixels pasted',
  'initial': 'first estimate',
}


def tables(named: Mapping[str, Results]) -> str:
  """Returns tables in Markdown of models and of methods without one.

  Args:
    named: results by the names of the models; '' is returned where none of them
      restores.
  """
  restoring = {k: x for k, x in named.items() if 'input' in x}
  if not restoring:
    return ''
  results = list(restoring.values())
  lines = ['', results[0]['protocol']['restoration'].capitalize() + '.', '']
  lines += of_models(restoring)
  baselines = next((x['baselines'] for x in results if 'baselines' in x), {})
  lines += ['', *without_a_model(results[0]['input'], baselines)]
  return '\n'.join(lines) + '\n'


def of_models(named: Mapping[str, Results]) -> list[str]:
  """Returns the lines of a table of PSNR: of restorations, and of copies."""
  groups = [k for k in _GROUPS if any(k in x for x in named.values())]
  head = ['model, PSNR in dB', 'bits per pixel', 'restoration']
  lines = _head([*head, *(_GROUPS[k] for k in groups)])
  for name, results in named.items():
    bits = results['bits_per_pixel']['fixed_length']
    cells = [name, bits if isinstance(bits, str) else f'{bits:.4g}']
    for group in (results, *(results.get(k, {}) for k in groups)):
      cells.append(f'{mean_of(group["psnr"]):.2f}' if 'psnr' in group else '')
    lines.append(line(cells))
  return lines


def without_a_model(
  unrestored: Results, baselines: Mapping[str, Results]
) -> list[str]:
  """Returns the lines of a table of methods that need no model.

  A method whose library is missing stands below it, with the reason.

  Args:
    unrestored: metrics of the degraded images.
    baselines: of `measure_baselines`.
  """
  rows = {'the input as it is': unrestored}
  rows |= {k: x for k, x in baselines.items() if 'missing' not in x}
  metrics = known({name for x in rows.values() for name in x})
  lines = _head(['without a model', *(x.heading for x in metrics.values())])
  for name, values in rows.items():
    cells = [
      x.number(mean_of(values[k])) if k in values else ''
      for k, x in metrics.items()
    ]
    lines.append(line([name.replace('_', ' '), *cells]))
  missing = {k: x['missing'] for k, x in baselines.items() if 'missing' in x}
  lines += [''] * bool(missing)
  return lines + [f'* {k.replace("_", " ")}: {x}' for k, x in missing.items()]


def _head(cells: Sequence[str]) -> list[str]:
  return [line(cells), line(['---'] * len(cells))]
