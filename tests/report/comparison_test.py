"""The report of a comparison: its words, its curves, its pictures."""

import numpy as np
from PIL import Image

from lasers_jax.report import comparison


def row(name, asked, psnr=None, bits=None, error=None, **settings):
  results = psnr and {
    'psnr': {'mean': psnr, 'low': psnr - 0.1, 'high': psnr + 0.1},
    'ssim': {'mean': 0.9},
    'bits_per_pixel': {'fixed_length': bits},
    'protocol': {'parameters': {'encoder': 1000, 'decoder': 234}},
  }
  if results and not isinstance(bits, str):
    results.update(usage=0.5, perplexity=12.3)
  return {
    'bottleneck': name,
    'asked_bits_per_pixel': asked,
    'settings': settings,
    'results': results,
    'error': error,
  }


ROWS = [
  row('vq', 0.5, 20.0, 0.5, K=512),
  row('none', None, 40.0, 'continuous'),
  row('residual', 2.0, 30.0, 2.0, depth=4, inner={'K': 256}),
  row('fsq', 0.5, 21.0, 0.5, levels=(8, 8, 8)),
  row('vq', 2.0, error='no settings: too many codes'),
]


def test_the_table_goes_rate_by_rate_the_best_first():
  lines = comparison.table(ROWS).splitlines()
  names = [line.split('`')[1] for line in lines[2:6]]
  assert names == ['fsq', 'vq', 'residual', 'none']
  assert lines[3] == (
    '| `vq` | K=512 | 1,234 | 0.5 | 20.00 (19.90 to 20.10) | 0.9000 '
    '| 50.0 % | 12 |'
  )


def test_few_images_have_no_interval():
  few = row('vq', 0.5, 20.0, 0.5, K=512)
  few['results']['psnr'].update(low=None, high=None)
  assert '| 0.5 | 20.00 | 0.9000 |' in comparison.table([few])


def test_a_continuous_code_is_marked_and_has_no_usage():
  line = next(x for x in comparison.table(ROWS).splitlines() if '`none`' in x)
  assert line == (
    '| `none` |  | 1,234 | continuous | 40.00 (39.90 to 40.10) | 0.9000 |  |  |'
  )


def test_other_metrics_have_columns():
  row = {**ROWS[0], 'results': {**ROWS[0]['results'], 'fd-vgg16': 12.345}}
  row['results']['lpips-vgg16'] = {'mean': 0.25}
  head, _, first, second, *_ = comparison.table([row, ROWS[3]]).splitlines()
  assert '| SSIM | LPIPS-VGG16 | FD-VGG16 | usage |' in head
  assert '| 0.9000 |  |  | 50.0 % |' in first  # not measured of fsq
  assert '| 0.9000 | 0.2500 | 12.345 | 50.0 % |' in second


def test_what_has_no_results_says_why_below_the_table():
  last = comparison.table(ROWS).splitlines()[-1]
  assert last == ('* `vq` at 2 bits per pixel: no settings: too many codes')


def test_settings_are_said_in_a_few_words():
  said = comparison.describe_settings(ROWS[2]['settings'])
  assert said == 'depth=4, inner K=256'
  assert comparison.describe_settings({'levels': (8, 5)}) == 'levels=8·5'


def test_the_curves_are_drawn_also_where_there_are_none(tmp_path):
  comparison.plot(ROWS, str(tmp_path / 'all.png'))
  comparison.plot(ROWS[-1:], str(tmp_path / 'none.png'))
  full, empty = (
    np.asarray(Image.open(tmp_path / name).convert('RGB')).astype(int)
    for name in ('all.png', 'none.png')
  )
  colour = lambda x: np.sum(np.ptp(x, axis=2) > 40)  # noqa: E731
  assert colour(empty) == 0 < colour(full)


def test_models_stand_below_the_originals():
  originals = np.full((2, 8, 8, 3), 255, np.uint8)
  reconstructions = [np.full((2, 8, 8, 3), i, np.uint8) for i in (10, 20)]
  figure = comparison.side_by_side(['a', 'b'], reconstructions, originals)
  column = figure[:, -20, 0]
  shown = column[np.r_[True, np.diff(column.astype(int)) != 0]]
  assert [x for x in shown if x in (255, 10, 20)] == [255, 10, 20]
