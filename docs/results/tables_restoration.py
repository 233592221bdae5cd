"""The tables of restorations: see tables.py."""

from collections.abc import Callable

from tables import Column, Row, Table, code, interval, rate, single

METHODS = {
  'input': 'the input as it is',
  'mean': 'mean of the known',
  'telea': 'Telea',
  'navier_stokes': 'Navier–Stokes',
  'lanczos': 'Lanczos',
  'tv': 'total variation',
  'nlm': 'non-local means',
  'webp_small': 'small image by WebP, bicubic',
  'photo_codec_small': 'small image by photo-codec, bicubic',
}


def damage(section: Row) -> str:
  """Writes {'name': 'superres', 'scale': 2} as 'superres, scale = 2'."""
  name = section['name']
  words = []
  for key, value in section.items():
    if key != 'name':
      shown = value[0] if isinstance(value, list) else value
      words.append(f'{key} = {shown:g}' if key != 'mask' else shown)
  return ', '.join([f'`{name}`', *words])


def of(*names: str) -> Callable[[list[Row]], list[Row]]:
  """Returns what selects the rows of some degradations."""

  def select(rows: list[Row]) -> list[Row]:
    found = [row for row in rows if row['degradation']['name'] in names]
    return [named(row) for row in found if not is_bicubic(row)]

  return select


def named(row: Row) -> Row:
  """A row of a method with names for a page."""
  name = METHODS.get(row['method'], row['method'])
  return {**row, 'name': name, 'damage': damage(row['degradation'])}


def is_bicubic(row: Row) -> bool:
  """Whether a row is that of the input, which bicubic enlarged, once more."""
  return row['degradation']['name'] == 'superres' and row['method'] == 'input'


def models(rows: list[Row]) -> list[Row]:
  """The models of a comparison, and the methods without one, the best first."""
  done = [row['results'] | {'own': row} for row in rows if row['results']]
  first = next(x for x in done if 'baselines' in x)
  found = []
  for results in done:
    own = results['own']
    bits = results['bits_per_pixel']['fixed_length']
    found.append(
      {**results, 'name': code(own['bottleneck']), 'rate': rate(bits)}
    )
  for method, values in first['baselines'].items():
    if 'missing' not in values and method != 'bicubic':
      name = METHODS.get(method, method)
      if method == 'input' and 'consistency' in values:
        name = 'bicubic: the input as it is'
      bits = values.get('bits_per_pixel')
      bits = f'{bits["mean"]:.3g}' if bits else 'none'
      found.append({**values, 'name': name, 'rate': bits})
  return sorted(found, key=lambda row: -row['psnr']['mean'])


_PSNR = Column('PSNR in dB (95 %)', 'psnr', interval)
_SSIM = Column('SSIM', 'ssim/mean', '.3f')
_METHOD = Column('damage', 'damage'), Column('method', 'name')
_Y_CUT = Column('PSNR of Y, border cut', 'psnr_y_cropped/mean', '.2f')
_SMALL = Column('consistency in dB', 'consistency/mean', '.2f')
_HOLE = Column('PSNR in the hole', 'psnr_hole/mean', '.2f')
_MODEL = Column('model or method', 'name'), Column('bits per pixel', 'rate')

TABLES = {
  'kodak-superres': Table(
    'kodak-superres', (*_METHOD, _PSNR, _SSIM, _Y_CUT, _SMALL), of('superres')
  ),
  'kodak-crops': Table(
    'kodak-restorations',
    (*_METHOD, _PSNR, _SSIM, _Y_CUT, _SMALL),
    of('superres'),
  ),
  'kodak-inpaint': Table(
    'kodak-restorations',
    (*_METHOD, Column('share', 'hole/mean', '.3f'), _HOLE, _PSNR, _SSIM),
    of('inpaint'),
  ),
  'kodak-others': Table(
    'kodak-restorations',
    (*_METHOD, _PSNR, Column('PSNR of Y', 'psnr_y/mean', '.2f'), _SSIM),
    of('denoise', 'deblock', 'colorize'),
  ),
  'cifar10-superres-input': Table(
    'cifar10-superres-input', (*_MODEL, _PSNR, _Y_CUT, _SMALL), models
  ),
  'cifar10-superres-longer': Table(
    'cifar10-superres-longer',
    (
      Column('model', 'name', code),
      Column('steps', 'steps', ',d'),
      Column('bits per pixel', 'rate'),
      Column('PSNR in dB (95 %)', 'results/psnr', interval),
      Column('PSNR of Y, border cut', 'results/psnr_y_cropped/mean', '.2f'),
      Column('consistency in dB', 'results/consistency/mean', '.2f'),
    ),
    single,
  ),
}
