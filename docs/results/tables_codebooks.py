"""The tables of how codebooks and dictionaries learn."""

from tables import (
  QUALITY,
  SEEDS,
  Column,
  Row,
  Table,
  code,
  join_seeds,
  percent,
  with_rates,
)


def by_rule(rows: list[Row]) -> list[Row]:
  """Gives each row what its batches used at the end of training."""
  found = []
  for row in with_rates(rows):
    training = row['training']
    last = {key: training[key][-1] for key in ('usage', 'perplexity')}
    found.append({**row, 'last': last})
  return found


def over_seeds(rows: list[Row]) -> list[Row]:
  """Joins the rows of a rule at a rate."""
  return join_seeds(rows, 'rule', 'rate')


def by_revival(rows: list[Row]) -> list[Row]:
  """Puts the PSNR of a rule of `vq` beside that of the rule with revival."""
  found = {
    row['rule']: row['results']['psnr']['mean']
    for row in rows
    if row['bottleneck'] == 'vq'
  }
  return [
    {'rule': rule, 'without': psnr, 'with': found[f'{rule}, revival']}
    for rule, psnr in found.items()
    if f'{rule}, revival' in found
  ]


LEARNING = (
  Column('`learning`', 'rule', code),
  Column('bits per pixel', 'rate'),
  *SEEDS,
)

TABLES = {
  'codebooks': Table(
    'cifar10-codebooks',
    (
      Column('bottleneck', 'bottleneck', code),
      Column('rule', 'rule'),
      *QUALITY,
      Column('usage of a batch', 'last/usage', percent),
      Column('perplexity of a batch', 'last/perplexity', '.0f'),
    ),
    by_rule,
  ),
  'straight-through': Table(
    'cifar10-codebooks',
    (
      Column('codes learn by', 'rule'),
      Column('PSNR in dB, without revival', 'without', '.2f'),
      Column('with revival', 'with', '.2f'),
    ),
    by_revival,
  ),
  'lasers-learning': Table('cifar10-lasers-learning', LEARNING, over_seeds),
  'lasers-learning-longer': Table(
    'cifar10-lasers-learning-longer', LEARNING, over_seeds
  ),
}
