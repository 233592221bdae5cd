import io

import numpy as np
import pytest
from PIL import Image

from lasers_jax.errors import InputError
from lasers_jax.evaluation.rate_distortion import (
  CLASSICAL,
  Coder,
  classical,
  measure,
)
from lasers_jax.metrics import similarity
from lasers_jax.report.rate_distortion_curve import above, table

RNG = np.random.default_rng(0)
COARSE = RNG.integers(0, 256, (4, 5, 3), np.uint8)
IMAGES = [
  np.asarray(Image.fromarray(COARSE).resize(size, Image.BICUBIC))
  for size in ((40, 24), (16, 16), (40, 24))
]


def row(codec, bits, psnr):
  return {'codec': codec, 'bits_per_pixel': bits, 'psnr': {'mean': psnr}}


def test_classical_codecs_are_those_of_pillow():
  coders = {(x.name, x.setting): x for x in classical()}
  assert len(coders) == sum(map(len, CLASSICAL.values()))
  coder = coders['JPEG', 'quality 50']
  buffer = io.BytesIO()
  Image.fromarray(IMAGES[0]).save(buffer, 'JPEG', quality=50, optimize=True)
  assert coder.encode(IMAGES[0]) == buffer.getvalue()
  np.testing.assert_array_equal(
    coder.decode(buffer.getvalue()), Image.open(buffer)
  )


@pytest.mark.parametrize('name', CLASSICAL)
def test_higher_quality_is_larger_and_better(name):
  rows = [measure(x, IMAGES) for x in classical() if x.name == name][::4]
  for key in (lambda x: x['bytes'], lambda x: x['psnr']['mean']):
    values = [key(x) for x in rows]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_bits_are_of_all_bytes_and_quality_is_a_mean_of_images():
  def encode(image):
    return (image // 2).tobytes()

  def decode(data):
    shape = {x.size: x.shape for x in IMAGES}[len(data)]
    return 2 * np.frombuffer(data, np.uint8).reshape(shape)

  found = measure(Coder('half', '', encode, decode), IMAGES)
  assert found['bits_per_pixel'] == 24
  expected = [
    float(similarity.psnr(x[None], (x // 2 * 2)[None])[0]) for x in IMAGES
  ]
  assert found['psnr']['mean'] == pytest.approx(np.mean(expected))
  assert found['psnr']['count'] == 3
  assert min(found['seconds_per_megapixel'].values()) > 0


def test_pictures_too_small_to_be_measured_are_refused():
  coder = next(iter(classical()))
  with pytest.raises(InputError, match='SSIM needs .* 11x11 .*9x30'):
    measure(coder, [np.zeros((9, 30, 3), np.uint8)])


def test_gains_are_read_between_the_points_of_the_other():
  rows = [
    row('JPEG', 1.0, 30.0), row('JPEG', 0.5, 26.0),
    row('ours', 0.75, 29.0), row('ours', 0.4, 25.0), row('ours', 1.0, 29.5),
  ]  # fmt: skip
  assert above(rows, 'JPEG')[2:] == [1.0, None, -0.5]
  assert above(rows, 'WEBP') == [None] * 5


def test_the_table_has_what_lies_above_each():
  rows = [measure(x, IMAGES) for x in list(classical())[::5]]
  lines = table(rows).splitlines()
  assert len(lines) == 2 + len(rows)
  assert lines[0].count('dB above') == len({x['codec'] for x in rows})
