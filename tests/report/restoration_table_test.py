"""Tables of restorations: their rows, and why a row is missing."""

from lasers_jax.report import restoration_table

QUALITY = {'psnr': {'mean': 25.0}, 'ssim': {'mean': 0.8}}
SENT = {**QUALITY, 'bits_per_pixel': {'mean': 0.4}}
NO_OPENCV = 'OpenCV is not installed: pip install opencv-python-headless'


def results(**more):
  return {
    **QUALITY,
    'input': {'psnr': {'mean': 20.0}},
    'clean': {'psnr': {'mean': 28.0}},
    'bits_per_pixel': {'fixed_length': 2.0},
    'protocol': {'restoration': 'code only: the decoder sees the code alone'},
    **more,
  }


def test_a_method_that_was_not_measured_says_why():
  found = {'biharmonic': QUALITY, 'telea': {'missing': NO_OPENCV}}
  text = restoration_table.markdown({'fsq-2': results(baselines=found)})
  assert f'\n* telea: {NO_OPENCV}\n' in text
  assert '| biharmonic | 25.00 |' in text
  assert '| telea' not in text


def test_bits_stand_beside_what_was_sent():
  found = {'bicubic': QUALITY, 'webp_small': SENT}
  lines = restoration_table.markdown({'x': results(baselines=found)})
  assert '| webp small | 25.00 | 0.8000 | 0.4 |' in lines
  assert '| bicubic | 25.00 | 0.8000 |  |' in lines


def test_the_copy_of_a_clean_image_stands_beside():
  text = restoration_table.markdown({'fsq-2': results(), 'vq': {**QUALITY}})
  assert '| fsq-2 | 2 | 25.00 | 28.00 |' in text
  assert 'Code only: the decoder sees the code alone.' in text
  assert restoration_table.markdown({'vq': {**QUALITY}}) == ''
