"""Tables of the pages of papers: the rows that bear on their claims."""

from tables import PERCEPTUAL, PRIORS, Column, Row, Table, code, distance

_DECODERS = (
  'vq+gan+wide',
  'vq+diffusion',
  'vq+swycc-mse',
  'vq+swycc',
  'vq+swycc+tuned',
)
_PRIORS = 'pmfs', 'pmfs:variant=around', 'gmm', 'flow', 'histogram'


def _named(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
  """Returns the rows of some names, in the order of these."""
  found = {row['name']: row for row in rows}
  return [found[name] for name in names]


TABLES = {
  'paper-swycc': Table(
    'cifar10-decoders',
    (Column('decoder', 'name', code), *PERCEPTUAL),
    lambda rows: _named(rows, _DECODERS),
  ),
  'paper-pmfs': Table(
    'mnist-priors',
    (
      Column('prior', 'name', code),
      *(Column(code(name), name, distance) for name in PRIORS),
    ),
    lambda rows: _named(rows, _PRIORS),
  ),
}
