"""The tables of files: their bytes, their images, and what damages them."""

from tables import CLASSICAL, FILES, SPACE, Column, Row, Table, code, signed


def site_bits(value: Row) -> str:
  levels = f' ({value["levels"]:.2f})' if 'levels' in value else ''
  return f'{value["bits"]:.2f}{levels}'


def gain(value: float) -> str:
  text = f'{100 * value:+.0f}{SPACE}%'.replace('-', '−') if value else ''
  return text.lstrip('+−') if text[1:2] == '0' else text


def percent(value: float) -> str:
  return f'{100 * value:+.1f}{SPACE}%'.replace('-', '−')


def portion(value: float) -> str:
  return f'{100 * value:.0f}{SPACE}%'


def of_models(rows: list[Row]) -> list[Row]:
  """Rows of codecs of this project."""
  return [row for row in rows if row['codec'] not in CLASSICAL]


def by_codec(rows: list[Row]) -> list[Row]:
  """One row a codec: its points up to about one bit per pixel."""
  found: dict[str, list[str]] = {}
  for row in rows:
    if row['bits_per_pixel'] < 1:
      text = f'{row["psnr"]["mean"]:.2f} at {row["bits_per_pixel"]:.3f}'
      found.setdefault(row['codec'], []).append(text.replace(' ', SPACE))
  return [{'codec': k, 'points': ', '.join(x)} for k, x in found.items()]


def point(value: Row) -> str:
  return f'{value["psnr"]:.2f} dB, {value["bits_per_pixel"]:.3f}'


def cost(value: Row) -> str:
  return f'{signed(value["psnr"])} dB, {value["bits_per_pixel"]:.2f}'


# Of codecs of one kind of file: PSNR beside those of Pillow at equal bits.
AGAINST = (
  Column('setting', 'setting'),
  *FILES[:2],
  Column('SSIM', 'ssim/mean', '.3f'),
  Column('LPIPS', 'lpips-alexnet/mean', '.3f'),
  Column('dB above JPEG', 'above/JPEG', signed),
  Column('WebP', 'above/WEBP', signed),
  Column('AVIF', 'above/AVIF', signed),
)

TABLES = {
  'kodak': Table(
    'kodak-codec',
    (
      Column('model', 'model', code),
      Column('setting', 'setting'),
      *FILES,
      Column('dB above JPEG', 'above_jpeg', signed),
      Column('WebP', 'above_webp', signed),
      Column('AVIF', 'above_avif', signed),
    ),
  ),
  'kodak-priced': Table(
    'kodak-curve',
    (Column('model', 'codec'), *AGAINST),
    of_models,
  ),
  'kodak-networks': Table(
    'kodak-networks', (Column('bottleneck', 'codec'), *AGAINST)
  ),
  'kodak-networks-rates': Table(
    'kodak-networks',
    (
      Column('bottleneck', 'codec'),
      Column('bits against `lasers`', 'others/lasers', gain),
      Column('JPEG', 'others/JPEG', gain),
      Column('WebP', 'others/WEBP', gain),
      Column('AVIF', 'others/AVIF', gain),
    ),
    key='rates',
  ),
  'step-laws': Table(
    'step-laws',
    (
      Column('steps in training', 'codec'),
      Column('setting', 'setting'),
      *FILES[:2],
      Column('SSIM', 'ssim/mean', '.3f'),
    ),
  ),
  'step-laws-rates': Table(
    'step-laws',
    (
      Column('steps in training', 'codec'),
      Column('bits against log s uniform', 'others/log s uniform', percent),
    ),
    key='rates',
  ),
  'kodak-rates': Table(
    'kodak-curve',
    (
      Column('codec', 'codec'),
      Column('bits against JPEG', 'others/JPEG', gain),
      Column('WebP', 'others/WEBP', gain),
      Column('AVIF 4:2:0', 'others/AVIF', gain),
      Column('AVIF 4:4:4', 'others/AVIF 4:4:4', gain),
    ),
    lambda rows: [row for row in rows if any(row['others'].values())],
    key='rates',
  ),
  'channel-weights': Table(
    'channel-weights',
    (
      Column('step', 'step', 'g'),
      Column('least', 'least', '.2f'),
      Column('lowest tenth', 'lowest tenth', '.2f'),
      Column('median', 'median', '.2f'),
      Column('highest tenth', 'highest tenth', '.2f'),
      Column('most', 'most', '.2f'),
    ),
  ),
  'kodak-published': Table(
    'kodak-published',
    (
      Column('codec', 'codec', code),
      Column('PSNR in dB at bits per pixel', 'points'),
    ),
    by_codec,
  ),
  'redundancy': Table(
    'redundancy',
    (
      Column('code', 'code'),
      Column('bits per pixel', 'bits_per_pixel', '.3f'),
      Column('PSNR in dB', 'psnr', '.2f'),
      Column('dB at equal bits', 'against', signed),
      Column('atoms a site', 'atoms', '.1f'),
    ),
  ),
  'redundancy-trained': Table(
    'redundancy-trained',
    (
      Column('steps', 'steps', ',d'),
      Column('cosines', 'cosines', point),
      Column('K = 128', 'learned', point),
      Column('K = 128 at equal bits, dB', 'against', signed),
    ),
  ),
  'two-scales': Table(
    'two-scales',
    (
      Column('step', 'step'),
      Column('contexts', 'contexts'),
      Column('cosines of an area', 'transform'),
      Column('bits per pixel', 'bits_per_pixel', '.3f'),
      Column('PSNR in dB', 'psnr', '.2f'),
      Column('error + price', 'cost_change', percent),
      Column('areas as one', 'share', portion),
    ),
  ),
  'small-files': Table(
    'cifar10-codec',
    (
      Column('setting', 'setting'),
      *FILES,
      Column('dB above WebP', 'above_webp', signed),
    ),
  ),
  'small-files-context': Table(
    'cifar10-codec-context',
    (
      Column('model', 'model', code),
      Column('setting', 'setting'),
      Column('bits per pixel', 'bits_per_pixel', '.3f'),
      Column('PSNR in dB', 'psnr', '.2f'),
      Column('dB above WebP', 'above_webp', signed),
    ),
  ),
  'atom-order': Table(
    'atom-order',
    (
      Column('bits a site: atoms (levels)', 'name'),
      Column('S = 1', 'S1', site_bits),
      Column('S = 2', 'S2', site_bits),
      Column('S = 4', 'S4', site_bits),
    ),
  ),
  'coefficient-bits': Table(
    'coefficient-bits',
    (
      Column('bits of a coefficient', 'bits'),
      Column('`lloyd`: PSNR, bits per pixel', 'lloyd', cost),
      Column('`mu_law`: PSNR, bits per pixel', 'mu_law', cost),
    ),
  ),
  'damaged-files': Table(
    'damaged-files',
    (Column('files', 'count', ',d'), Column('outcome', 'outcome')),
  ),
}
