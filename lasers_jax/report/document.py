"""Renders the report of an evaluation as one self-contained HTML file."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from lasers_jax.evaluation.examples import Findings
from lasers_jax.evaluation.protocol import Measured, mean_of
from lasers_jax.metrics import statistics
from lasers_jax.metrics.registry import Metric, known
from lasers_jax.report import panels, restoration_table


class Origin(NamedTuple):
  """The config, the training and the command behind an evaluation."""

  config: Mapping[str, Any]
  history: list[dict[str, Any]]  # the lines of metrics.jsonl
  versions: dict[str, str]
  command: str


def render(
  results: Mapping[str, Any],
  measured: Measured,
  findings: Findings,
  origin: Origin,
) -> str:
  """Returns a report as HTML, a function of its arguments alone.

  Args:
    results: as in results.json, with their protocol.
    measured: the values behind the results.
    findings: the examples to show.
    origin: of the evaluation.
  """
  protocol, config = results['protocol'], origin.config
  history, terms = origin.history, list(config['loss']['weights'])
  counts = measured.counts
  return template('report.html.jinja').render(
    title=_title(config),
    protocol=protocol,
    protocol_rows=config_rows(
      # All other nested keys are shown with the config.
      _flat(protocol)
      | {k: protocol[k] for k in ('parameters', 'weights_of_metrics')}
    ),
    bits=_describe_bits(results),
    tiles=_tiles(results, len(counts)),
    metrics=_metrics(results),
    has_initial='initial' in results,
    restoration=_restoration(results),
    missing=restoration_table.missing({'': results}),
    training=panels.training(history, terms, protocol['step']),
    distributions=panels.distributions(measured, findings),
    rankings=panels.rankings(measured, findings),
    cropped_to=panels.LARGEST if panels.is_cropped(findings) else None,
    codes=panels.use_of_codes(counts) + panels.coefficients(findings),
    atoms=panels.atoms(counts, findings),
    by_use=findings.numbers is not None,
    samples=findings.samples and panels.samples(findings.samples),
    sweep=findings.sweep and panels.sweep(findings),
    sampling=_words(protocol.get('sampling', {})),
    origin=origin,
    config=sections(config),
  )


@functools.cache
def template(name: str) -> jinja2.Template:
  """Returns a template of this folder."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template(name)


def _title(config) -> str:
  names = [config['bottleneck']['name']]
  names += [config['decoder']['name']] if 'decoder' in config else []
  names += ['discriminator'] if 'discriminator' in config else []
  return f'{" + ".join(names)} on {config["data"]["name"]}'


def _words(section: Mapping[str, Any]) -> str:
  """Returns keys and values of a section on one line of text."""
  return ', '.join(
    f'{key.replace("_", " ")} {value}' for key, value in config_rows(section)
  )


def _describe_bits(results) -> str:
  """Returns the text of bits that stands beside every quality."""
  bits = results['bits_per_pixel']['fixed_length']
  if isinstance(bits, str):
    return 'a continuous code, whose bits are not counted'
  return f'{bits:.4g} bits per pixel'


def _tiles(results, symbols: int) -> list[tuple[str, str, str]]:
  """Returns the most important results: name, value, remark."""
  bits = results['bits_per_pixel']['fixed_length']
  if isinstance(bits, str):
    tiles = [('Bits per pixel', bits, 'numbers are kept as they are')]
  else:
    remark = f'fixed length; 1/{24 / bits:.3g} of 24-bit colour'
    tiles = [('Bits per pixel', f'{bits:.4g}', remark)]
  for name, metric in known(results).items():
    if metric.headline:
      value = metric.quantity(mean_of(results[name]))
      interval = _interval(metric, results[name])
      remark = f'95 %: {interval}' if interval else ''
      tiles.append((metric.title, value, remark))
  if 'usage' in results:
    remark = f'of {symbols:,}; perplexity {results["perplexity"]:.1f}'
    tiles.append(('Codes in use', f'{results["usage"]:.1%}', remark))
  return tiles


def _metrics(results) -> list[dict[str, str]]:
  """Returns the table of results: a row for each metric."""
  initial = results.get('initial', {})
  rows = []
  for name, metric in known(results).items():
    first = name in initial and metric.number(mean_of(initial[name]))
    rows.append(
      {
        'name': metric.heading,
        'mean': metric.number(mean_of(results[name])),
        'interval': _interval(metric, results[name]),
        'initial': first or '',
        'better': 'higher' if metric.higher_is_better else 'lower',
      }
    )
  return rows


def _restoration(results) -> list[restoration_table.Table]:
  """Returns the tables of a model that restores images; [] of another."""
  if 'input' not in results:
    return []
  return restoration_table.tables({'this model': results})


def _interval(metric: Metric, value) -> str:
  """Returns the interval of a mean over images; '' for a metric of sets."""
  if not isinstance(value, Mapping):
    return ''
  return statistics.describe_interval(value, metric.number)


def sections(config: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
  """Returns the config by section; keys of no section come first."""
  flat = _flat(config)
  nested = {k: config_rows(v) for k, v in config.items() if k not in flat}
  return {'': config_rows(flat), **nested}


def _flat(section: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in section.items() if not isinstance(v, Mapping)}


def config_rows(section: Mapping[str, Any], prefix: str = '') -> list:
  """Returns nested keys and values as rows of text."""
  rows = []
  for key, value in section.items():
    if isinstance(value, Mapping):
      rows += config_rows(value, f'{prefix}{key}.')
    else:
      rows.append((prefix + key, _text(value)))
  return rows


def _text(value: Any) -> str:
  if isinstance(value, Sequence) and not isinstance(value, str):
    return ', '.join(map(_text, value)) or 'empty'
  return f'{value:.6g}' if isinstance(value, float) else str(value)
