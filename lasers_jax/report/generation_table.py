"""Results of several models and priors side by side, as Markdown.

A row is the JSON that `lasers-jax sample` writes for a model and a prior.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lasers_jax.report.comparison import describe_settings, line

Row = Mapping[str, Any]

_HEAD = (
  'model', 'prior', 'FD to held-out', 'FD to train', 'W1 marginal',
  'W2 sliced', 'W2 exact', 'precision', 'recall', 'density', 'coverage',
  'nearest train / held-out, latents', 'the same, images', 'fit in s',
  'draw in s',
)  # fmt: skip
# Only where a row has them: priors over maps do.
_MORE = (
  'class accuracy', 'bits per pixel', 'with the class', 'guidance', 'drawing',
  'an image in s',
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
  """Returns rows as Markdown, model by model, the smallest distance first.

  The first row of a model is its baseline: the scores of as many training
  images against the held-out ones. Below it stand the scores of reconstructions
  of the held-out images, where there are any. Bits of a prior that are a bound
  have a "≤".
  """
  models = list(dict.fromkeys(row['model'] for row in rows))
  cells = []
  for model in models:
    own = [row for row in rows if row['model'] == model]
    own.sort(key=lambda row: row['distances']['frechet'])
    cells += [_real(own[0]), *_reconstructed(own[0]), *map(_drawn, own)]
  more = [x for x in _MORE if any(x in own for own in cells)]
  head = [*_HEAD, *more]
  lines = [line(head), line(['---'] * len(head))]
  lines += [line([own.get(x, '') for x in head]) for own in cells]
  return '\n'.join(lines) + '\n'


def overview(rows: Sequence[Row]) -> str:
  """Returns the distances of all models side by side, as Markdown.

  There is a row for each prior and a column for each model. A cell has the FD
  to held-out images. In brackets stands the mean distance of drawn images to
  their nearest training images, where 1 is that of held-out images.
  """
  models = list(dict.fromkeys(row['model'] for row in rows))
  priors = list(dict.fromkeys(row['prior'] for row in rows))
  by_both = {(row['prior'], row['model']): row for row in rows}
  lines = [
    line(['prior', *(f'`{x}`' for x in models)]),
    line(['---'] * (len(models) + 1)),
  ]
  for prior in priors:
    own = [by_both[prior, model] for model in models]
    lines.append(line([f'`{prior}`', *map(_brief, own)]))
  return '\n'.join(lines) + '\n'


def _brief(row: Row) -> str:
  near = row['memorization']['images']['all_train_mean_ratio']
  return f'{row["distances"]["frechet"]:.4g} ({near:.2f})'


def _drawn(row: Row) -> dict[str, str]:
  """Returns the cells of a row, by their heads."""
  frechet, *wasserstein = row['distances'].values()
  near, seconds = row['memorization'], row['seconds']
  return {
    'model': f'`{row["model"]}`',
    'prior': f'`{row["prior"]}`',
    'FD to held-out': f'{frechet:.4g}',
    'FD to train': f'{row["frechet_to_train"]:.4g}',
    **_of_latents(wasserstein),
    **_manifold(row['manifold']),
    _HEAD[11]: _near(near['latents']),
    _HEAD[12]: _near(near['images']),
    **{f'{x} in s': f'{seconds[x]:.2g}' for x in seconds if x != 'image'},
    **(
      {'an image in s': f'{seconds["image"]:.2g}'} if 'image' in seconds else {}
    ),
    **_accuracy(row, 'draws'),
    **_bits(row),
    **_drawing(row),
  }


def _real(row: Row) -> dict[str, str]:
  frechet, *wasserstein = row['baselines'].values()
  floor = row.get('floors', {}).get('train', {})
  return {
    'model': f'`{row["model"]}`',
    'prior': 'real',
    'FD to held-out': f'{frechet:.4g}',
    **_of_latents(wasserstein),
    **_manifold(floor.get('manifold', {})),
    _HEAD[11]: '1',
    _HEAD[12]: '1',
    **_accuracy(row, 'real'),
  }


def _reconstructed(row: Row) -> list[dict[str, str]]:
  """Returns the cells of reconstructions; none where there are no such."""
  floor = row.get('floors', {}).get('reconstructions')
  if floor is None:
    return []
  cells = {
    'model': f'`{row["model"]}`',
    'prior': 'reconstructions',
    'FD to held-out': f'{floor["frechet"]:.4g}',
    'FD to train': f'{floor["frechet_to_train"]:.4g}',
    **_manifold(floor['manifold']),
    _HEAD[12]: _near(floor['memorization']),
    **_accuracy(row, 'reconstructions'),
  }
  return [cells]


def _of_latents(wasserstein: Sequence[float]) -> dict[str, str]:
  return dict(zip(_HEAD[4:7], (f'{x:.4f}' for x in wasserstein), strict=True))


def _manifold(scores: Mapping[str, float]) -> dict[str, str]:
  return {x: f'{scores[x]:.3f}' for x in _HEAD[7:11] if x in scores}


def _near(scores: Mapping[str, float]) -> str:
  return f'{scores["all_train_mean_ratio"]:.3f}'


def _accuracy(row: Row, kind: str) -> dict[str, str]:
  scores = row.get('class_accuracy', {}).get(kind)
  return (
    {} if scores is None else {'class accuracy': f'{scores["accuracy"]:.3f}'}
  )


def _bits(row: Row) -> dict[str, str]:
  scores = row.get('bits_per_pixel', {}).get('prior')
  if scores is None:
    return {}
  given, paid = describe_bits(scores)
  return {'bits per pixel': given, 'with the class': paid}


def describe_bits(scores: Mapping[str, Any]) -> tuple[str, str]:
  """Returns bits per pixel, given the class and with it, "≤" before a bound.

  Args:
    scores: of `evaluation.conditional.bits_per_pixel`.
  """
  sign = '' if scores['exact'] else '≤ '
  given = scores['given_class']['mean']
  return f'{sign}{given:.4g}', f'{sign}{scores["with_class"]:.4g}'


def _drawing(row: Row) -> dict[str, str]:
  drawing = dict(row.get('protocol', {}).get('drawing', {}))
  if not drawing:
    return {}
  guidance = drawing.pop('guidance')
  return {'guidance': f'{guidance:g}', 'drawing': describe_settings(drawing)}
