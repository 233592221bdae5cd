"""Results of several models and priors side by side, as Markdown.

A row is the JSON that `sample.py` writes for a model and a prior.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lasers_jax.report.comparison import line

Row = Mapping[str, Any]

_HEAD = (
  'model', 'prior', 'FD to held-out', 'FD to train', 'W1 marginal',
  'W2 sliced', 'W2 exact', 'precision', 'recall', 'density', 'coverage',
  'nearest train / held-out, latents', 'the same, images', 'fit in s',
  'draw in s',
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
  """Returns rows as Markdown, model by model, the smallest distance first.

  The first row of a model is its baseline: the scores of as many training
  images against the held-out ones.
  """
  models = list(dict.fromkeys(row['model'] for row in rows))
  lines = [line(_HEAD), line(['---'] * len(_HEAD))]
  for model in models:
    own = [row for row in rows if row['model'] == model]
    own.sort(key=lambda row: row['distances']['frechet'])
    lines.append(line(_baseline(own[0])))
    lines += [line(_cells(row)) for row in own]
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


def _cells(row: Row) -> list[str]:
  frechet, *wasserstein = row['distances'].values()
  near = row['memorization']
  return [
    f'`{row["model"]}`',
    f'`{row["prior"]}`',
    f'{frechet:.4g}',
    f'{row["frechet_to_train"]:.4g}',
    *(f'{x:.4f}' for x in wasserstein),
    *(
      f'{row["manifold"][x]:.3f}'
      for x in ('precision', 'recall', 'density', 'coverage')
    ),
    *(f'{near[x]["all_train_mean_ratio"]:.3f}' for x in ('latents', 'images')),
    *(f'{row["seconds"][x]:.2g}' for x in ('fit', 'draw')),
  ]


def _baseline(row: Row) -> list[str]:
  frechet, *wasserstein = row['baselines'].values()
  numbers = [f'{frechet:.4g}', '', *(f'{x:.4f}' for x in wasserstein)]
  blank = [''] * 4
  return [f'`{row["model"]}`', 'real', *numbers, *blank, '1', '1', '', '']
