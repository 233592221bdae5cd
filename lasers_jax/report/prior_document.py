"""Renders the report of a prior over maps as one self-contained HTML file.

Results are the row of a prior, as `generation_table` takes it: `model`,
`prior`, what `generation.score` returns, `seconds`, `protocol`, and where there
are any `floors` (`generation.floors`), `class_accuracy` of draws, real and
reconstructions (`conditional.class_accuracy`), `class_names`, and
`bits_per_pixel`: `fixed_length`, a number or 'continuous', and `prior`
(`conditional.bits_per_pixel`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lasers_jax.metrics import statistics
from lasers_jax.report import panels
from lasers_jax.report.document import Origin, config_rows, sections, template
from lasers_jax.report.generation_table import describe_bits

# The pictures that a report may have, in this order: title and explanation.
FIGURES = {
  'classes': ('Draws by class', 'A row for each class that was asked for.'),
  'guidance': (
    'One noise at several strengths of guidance',
    'A column has one key and one class. g = 1 is no guidance.',
  ),
  'nearest': (
    'Draws beside their nearest training images',
    'The nearest by Euclidean distance of pixels.',
  ),
  'bits': (
    'Bits by site',
    'What the prior pays for the code of each site of real images; of a bound '
    'that is sampled, the mean over samples.',
  ),
  'unmasking': (
    'An image as it is drawn',
    'Step by step, from left to right; grey sites are still masked.',
  ),
  'completions': (
    'Half an image completed',
    'The sites of the given half are known; the others are drawn.',
  ),
}
_SCORES = {
  'frechet': ('Fréchet distance to held-out images', '↓', '.4g'),
  'frechet_to_train': ('Fréchet distance to training images', '↓', '.4g'),
  'precision': ('Precision', '↑', '.3f'),
  'recall': ('Recall', '↑', '.3f'),
  'density': ('Density', '↑', '.3f'),
  'coverage': ('Coverage', '↑', '.3f'),
  'accuracy': ('Class accuracy', '↑', '.3f'),
  'all_train_mean_ratio': (
    'Distance to the nearest training image, over that of held-out images',
    '',
    '.3f',
  ),
  'copying_z': ('Copying, z: under −3 draws are copies', '↑', '.2f'),
}


def render(
  results: Mapping[str, Any], figures: Mapping[str, np.ndarray], origin: Origin
) -> str:
  """Returns a report as HTML, a function of its arguments alone.

  Args:
    results: of the prior, see above.
    figures: pictures uint8 [H, W, 3], by keys of FIGURES; some or all.
    origin: of the evaluation: of the prior's config and training.

  Raises:
    ValueError: a picture that FIGURES does not have.
  """
  unknown = figures.keys() - FIGURES.keys()
  if unknown:
    raise ValueError(
      f'no such picture of a prior: {", ".join(sorted(unknown))}'
    )
  protocol = results['protocol']
  columns = _columns(results)
  return template('prior.html.jinja').render(
    title=f'Prior {results["prior"]} over the latents of {results["model"]}',
    protocol=protocol,
    protocol_rows=config_rows(protocol),
    bits=_describe_bits(results),
    tiles=_tiles(results, columns),
    kinds=list(columns),
    scores=_scores(columns),
    classes=_classes(results),
    planes=_planes(results),
    training=panels.training(origin.history, [], protocol['step']),
    figures=[
      (*FIGURES[name], panels.picture(figures[name]))
      for name in FIGURES
      if name in figures
    ],
    origin=origin,
    config=sections(origin.config),
  )


def _columns(results) -> dict[str, dict[str, float]]:
  """Returns scores by their names: of draws, and of the floors there are."""
  floors = results.get('floors', {})
  images = results['memorization']['images']
  drawn = {
    'frechet': results['distances']['frechet'],
    'frechet_to_train': results['frechet_to_train'],
    'manifold': results['manifold'],
    'memorization': images,
  }
  train = {
    'frechet': results['baselines']['frechet'],
    **floors.get('train', {}),
  }
  columns = {'draws': drawn, 'real': train}
  if 'reconstructions' in floors:
    columns['reconstructions'] = floors['reconstructions']
  accuracy = results.get('class_accuracy', {})
  return {
    kind: {
      **scores,
      **scores.get('manifold', {}),
      **scores.get('memorization', {}),
      **accuracy.get(kind, {}),
    }
    for kind, scores in columns.items()
  }


def _scores(columns) -> list[tuple[str, str, list[str]]]:
  """Returns a row for each score: name, arrow, a cell for each column."""
  return [
    (
      name,
      arrow,
      [f'{own[key]:{form}}' if key in own else '' for own in columns.values()],
    )
    for key, (name, arrow, form) in _SCORES.items()
    if any(key in own for own in columns.values())
  ]


def _describe_bits(results) -> str:
  """Returns the text of bits that stands beside every quality."""
  fixed = results.get('bits_per_pixel', {}).get('fixed_length', 'continuous')
  if isinstance(fixed, str):
    text = 'a continuous latent, whose bits are not counted'
  else:
    text = f'{fixed:.4g} bits per pixel of fixed length'
  prior = results.get('bits_per_pixel', {}).get('prior')
  if prior:
    text += f', {describe_bits(prior)[0]} by the prior'
  return text


def _tiles(results, columns) -> list[tuple[str, str, str]]:
  """Returns the most important results: name, value, remark."""
  tiles = []
  prior = results.get('bits_per_pixel', {}).get('prior')
  if prior:
    given, paid = describe_bits(prior)
    interval = statistics.describe_interval(
      prior['given_class'], '{:.4g}'.format
    )
    remark = f'given the class, {paid} with it'
    remark += f'; 95 %: {interval}' if interval else ''
    tiles.append(('Bits per pixel', given, remark))
  for key, title, form in (
    ('frechet', 'Fréchet distance', '.4g'),
    ('accuracy', 'Class accuracy', '.1%'),
    ('copying_z', 'Copying, z', '.1f'),
  ):
    if key in columns['draws']:
      beside = [
        f'{kind} {own[key]:{form}}'
        for kind, own in columns.items()
        if kind != 'draws' and key in own
      ]
      value = f'{columns["draws"][key]:{form}}'
      tiles.append((title, value, ', '.join(beside)))
  if 'image' in results['seconds']:
    value = f'{results["seconds"]["image"]:.2g}'
    tiles.append(('Seconds a draw', value, 'without compilation'))
  return tiles


def _classes(results) -> list[tuple[str, ...]]:
  """Returns a row for each class: what was asked for, and what was found."""
  accuracy = results.get('class_accuracy')
  if not accuracy:
    return []
  draws = accuracy['draws']
  names = results.get('class_names') or range(len(draws['asked']))
  rows = []
  for i, name in enumerate(names):
    counts = [f'{draws[x][i]:,}' for x in ('asked', 'found', 'right')]
    parts = [
      _percent(accuracy[kind]['right'][i], accuracy[kind]['asked'][i])
      if kind in accuracy
      else ''
      for kind in ('draws', 'reconstructions', 'real')
    ]
    rows.append((str(name), *counts, *parts))
  return rows


def _percent(right: int, asked: int) -> str:
  return f'{right / asked:.1%}' if asked else ''


def _planes(results) -> str:
  """Returns the bits of each plane of a site; '' where there is one or none."""
  prior = results.get('bits_per_pixel', {}).get('prior')
  if not prior or len(prior['by_plane']) < 2:
    return ''
  return ' + '.join(f'{x:.2f}' for x in prior['by_plane'])
