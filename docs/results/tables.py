"""The tables of the documentation: of which file, and with which columns.

Read by make_tables.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Row = dict[str, Any]
SPACE = '\N{NO-BREAK SPACE}'


class Column(NamedTuple):
  """One column of a table.

  Attributes:
    title: its head.
    key: where a row has the value; '/' goes into a nested dictionary.
    style: how a number is written, as for `format`; or a function of the value.
  """

  title: str
  key: str
  style: str | Callable[[Any], str] = ''


class Table(NamedTuple):
  """One table.

  Attributes:
    file: of results, without its suffix.
    columns: from left to right.
    select: the rows that the table has, from those of the file.
    key: where a file that states its protocol has the rows.
  """

  file: str
  columns: tuple[Column, ...]
  select: Callable[[list[Row]], list[Row]] = lambda rows: rows
  key: str = 'rows'


def code(text: str) -> str:
  return f'`{text}`'


def percent(value: float, digits: int = 1) -> str:
  return f'{100 * value:.{digits}f}{SPACE}%'


def interval(value: Row | float) -> str:
  if not isinstance(value, dict):
    return f'{value:.2f}'
  text = '{mean:.2f} ({low:.2f} to {high:.2f})'.format(**value)
  return text.replace(' ', SPACE)


def spread(value: Row) -> str:
  """Writes a mean with the least and the most, where there are several."""
  one = value['low'] == value['high']
  return interval(value['mean'] if one else value)


def settings(value: Row) -> str:
  """Writes {'K': 8, 'inner': {'K': 2}} as 'K = 8, inner K = 2'."""
  words = []
  for key, one in value.items():
    if isinstance(one, dict):
      words += [f'{key} {word}' for word in settings(one).split(', ')]
    elif isinstance(one, list):
      words.append(f'{key} = {"·".join(map(str, one))}')
    else:
      words.append(f'{key} = {one}')
  return ', '.join(words)


def rate(value: float | str) -> str:
  return value if isinstance(value, str) else f'{value:g}'


def signed(value: float) -> str:
  return f'{value:+.2f}'.replace('-', '−')


def distance(value: Row) -> str:
  return f'{value["distance"]:.4g} ({value["nearest"]:.2f})'


def with_rates(rows: list[Row]) -> list[Row]:
  """Gives each finished row its rate; the best first at each rate."""
  done = []
  for row in rows:
    if row['results']:
      bits = row['results']['bits_per_pixel']
      done.append({**row, 'rate': rate(bits['fixed_length'])})
  return sorted(done, key=_best_first)


def _best_first(row: Row) -> tuple[float, float]:
  asked = row['asked_bits_per_pixel'] or float('inf')
  return asked, -row['results']['psnr']['mean']


def join_seeds(rows: list[Row], *keys: str) -> list[Row]:
  """Joins the rows that are alike in these keys: means, and the spread."""
  groups: dict[tuple, list[Row]] = {}
  for row in with_rates(rows):
    groups.setdefault(tuple(row[key] for key in keys), []).append(row)
  return sorted(map(_joined, groups.values()), key=_best_first)


def over_seeds(rows: list[Row]) -> list[Row]:
  """Joins the rows of a bottleneck at a rate."""
  return join_seeds(rows, 'bottleneck', 'rate')


def _joined(rows: list[Row]) -> Row:
  def mean(*keys: str) -> float:
    values = [row['results'] for row in rows]
    for key in keys:
      values = [x.get(key) if x else None for x in values]
    return None if None in values else sum(values) / len(values)

  every = [row['results']['psnr']['mean'] for row in rows]
  psnr = {'mean': mean('psnr', 'mean'), 'low': min(every), 'high': max(every)}
  results = {
    'psnr': psnr,
    'ssim': {'mean': mean('ssim', 'mean')},
    'usage': mean('usage'),
    'perplexity': mean('perplexity'),
  }
  return {**rows[0], 'seeds': len(rows), 'results': results}


def headlines(rows: list[Row]) -> list[Row]:
  """The five rows of the README."""
  wanted = [
    ('vq', 0.5625),
    ('lasers', 0.5625),
    ('residual', 2.0),
    ('lasers', 2.0),
    ('none', None),
  ]
  found = {
    (row['bottleneck'], row['asked_bits_per_pixel']): row
    for row in over_seeds(rows)
  }
  return [found[name] for name in wanted]


def with_first_images(rows: list[Row]) -> list[Row]:
  """Puts the image that a diffusion decoder begins with below its row."""
  done = []
  for row in rows:
    time = row.get('milliseconds_at_most')
    time = f'at most {time}' if time else row.get('milliseconds')
    done.append({**row, 'name': code(row['name']), 'time': time})
    if 'first' in row:
      first = row['first']
      time = first.get('milliseconds')
      done.append({'name': 'its first image', **first, 'time': time})
  return done


def single(rows: Row) -> list[Row]:
  """The row of a results file of one model."""
  bits = rows['bits_per_pixel']['fixed_length']
  steps = rows['protocol']['step']
  name = rows['protocol']['bottleneck']['name']
  return [{'name': name, 'steps': steps, 'rate': rate(bits), 'results': rows}]


QUALITY = (
  Column('PSNR in dB (95 %)', 'results/psnr', interval),
  Column('SSIM', 'results/ssim/mean', '.4f'),
  Column('usage', 'results/usage', percent),
  Column('perplexity', 'results/perplexity', '.0f'),
)
ONE_MODEL = (
  Column('bottleneck', 'name', code),
  Column('steps', 'steps', ',d'),
  Column('bits per pixel', 'rate'),
  *QUALITY,
)
PERCEPTUAL = (
  Column('PSNR in dB', 'psnr', '.2f'),
  Column('SSIM', 'ssim', '.3f'),
  Column('LPIPS-VGG16', 'lpips-vgg16', '.3f'),
  Column('LPIPS-AlexNet', 'lpips-alexnet', '.3f'),
  Column('FD-VGG16', 'fd-vgg16', '.0f'),
)
FILES = (
  Column('bits per pixel', 'bits_per_pixel', '.3f'),
  Column('PSNR in dB (95 %)', 'psnr', interval),
  Column('SSIM', 'ssim', '.3f'),
)
CLASSICAL = 'JPEG', 'WEBP', 'AVIF', 'AVIF 4:4:4'
PRIORS = 'ae', 'rae', 'wae', 'beta_vae', 'vae', 'info_vae'
SECONDS = '0.25', '0.5', '1', '2.5', '5', '10', '20'
LEARNING = (
  Column('learner', 'name'),
  *(Column(f'{x} s', x, '.4f') for x in SECONDS),
  Column('ms an update', 'update', 'g'),
)

DRAWS = (
  Column('prior', 'prior', code),
  Column('FD to test', 'distances/frechet', '.4g'),
  Column('precision', 'manifold/precision', '.3f'),
  Column('recall', 'manifold/recall', '.3f'),
  Column('coverage', 'manifold/coverage', '.3f'),
  Column('nearest image', 'nearest_image', '.3f'),
  Column('class accuracy', 'accuracy', percent),
  Column('bits per pixel', 'bits'),
)

SEEDS = (
  Column('seeds', 'seeds'),
  Column('PSNR in dB (lowest to highest)', 'results/psnr', spread),
  *QUALITY[1:],
)

SETTING = (
  Column('bottleneck', 'bottleneck', code),
  Column('settings', 'settings', settings),
  Column('bits per pixel', 'rate'),
)
COMPARED = (*SETTING, *QUALITY)

TABLES = {
  'headlines': Table(
    'cifar10-seeds',
    (
      Column('bottleneck', 'bottleneck', code),
      Column('bits per pixel', 'rate'),
      *SEEDS,
    ),
    headlines,
  ),
  'comparison': Table('cifar10-comparison', COMPARED, with_rates),
  'seeds': Table('cifar10-seeds', (*SETTING, *SEEDS), over_seeds),
  'longer': Table('cifar10-longer', (*SETTING, *SEEDS), over_seeds),
  'vq-1024': Table('cifar10-vq-1024', COMPARED, with_rates),
  'vq-7000': Table('cifar10-vq-7000', ONE_MODEL, single),
  'lasers-7000': Table('cifar10-lasers-7000', ONE_MODEL, single),
  'code-bits': Table(
    'code-bits',
    (
      Column('model', 'model', code),
      Column('order', 'order'),
      Column('PSNR in dB', 'psnr', '.2f'),
      Column('fixed', 'fixed', 'g'),
      Column('table', 'table', '.4f'),
      Column('position', 'position', '.4f'),
      Column('context', 'context', '.4f'),
      Column('ar', 'ar', '.4f'),
      Column('given the class', 'ar_class', '.4f'),
      Column('paid', 'ar_class_paid', '.4f'),
      Column('seen', 'seen', '.4f'),
    ),
  ),
  'map-draws': Table('map-draws', DRAWS),
  'cifar10-draws': Table('cifar10-draws', DRAWS),
  'sparse-codes': Table(
    'sparse-codes',
    (
      Column('`pursuit`', 'pursuit'),
      Column('K', 'K'),
      Column('S', 'S'),
      Column('`coefficient_bits`', 'coefficient_bits'),
      Column('bits per pixel', 'bits_per_pixel', 'g'),
      Column('PSNR in dB', 'psnr', '.2f'),
    ),
  ),
  'decoders': Table(
    'cifar10-decoders',
    (
      Column('decoder', 'name'),
      *PERCEPTUAL,
      Column('ms an image', 'time'),
    ),
    with_first_images,
  ),
  'diffusion-ablation': Table(
    'cifar10-diffusion-ablation', (Column('change', 'change'), *PERCEPTUAL)
  ),
  'sampling-steps': Table(
    'cifar10-sampling-steps',
    (
      Column('model', 'model', code),
      Column('sampling', 'sampling'),
      *(column for column in PERCEPTUAL if column.key != 'lpips-alexnet'),
    ),
  ),
  'clothing-decoders': Table(
    'clothing-decoders', (Column('decoder', 'name', code), *PERCEPTUAL)
  ),
  'priors': Table(
    'mnist-priors',
    (
      Column('prior', 'name', code),
      *(Column(code(name), name, distance) for name in PRIORS),
    ),
  ),
  'priors-scores': Table(
    'mnist-priors-scores',
    (
      Column('prior', 'name'),
      Column('FD to test', 'fd', '.4g'),
      Column('FD to training', 'fd_to_training', '.4g'),
      Column('W1 marginal', 'w1_marginal', '.4f'),
      Column('W2 sliced', 'w2_sliced', '.4f'),
      Column('W2 exact', 'w2_exact', '.3f'),
      Column('precision', 'precision', '.3f'),
      Column('recall', 'recall', '.3f'),
      Column('density', 'density', '.3f'),
      Column('coverage', 'coverage', '.3f'),
      Column('nearest latent', 'nearest_latents', '.3f'),
      Column('nearest image', 'nearest_images', '.3f'),
    ),
  ),
  'bins': Table(
    'mnist-bins',
    (
      Column('prior', 'name'),
      Column('Fréchet distance', 'fd', '.1f'),
      Column('nearest image', 'nearest_images', '.2f'),
      Column('nearest latent', 'nearest_latents', '.2f'),
      Column('precision', 'precision', '.2f'),
      Column('recall', 'recall', '.2f'),
    ),
  ),
  'learning-patches': Table('dictionary-learning-patches', LEARNING),
  'learning-planted': Table('dictionary-learning-planted', LEARNING),
}
