"""The demonstration says what is true of the files that it writes."""

import io
import re
import sys

import numpy as np
import pytest
from PIL import Image
from skimage.data import chelsea, coffee

from examples import demo
from lasers_jax.codec import fit_scales


@pytest.mark.parametrize('least', [0, 1_500, 4_000])
def test_a_jpeg_has_no_fewer_bytes_and_no_smaller_one_does(least):
  image = chelsea()[100:196, 100:228]
  found = demo.smallest_jpeg(image, least)
  assert len(found) >= least
  for quality in range(1, 96):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=quality, optimize=True)
    size = len(buffer.getvalue())
    assert size < least or size >= len(found)


def test_the_picture_shows_pixels_as_they_are():
  images = [chelsea(), coffee()]
  other = [np.clip(image + 20, 0, 255).astype(np.uint8) for image in images]
  coded = demo.Coded('JPEG', other, [1_234, 99], [30.0, 28.26])
  atoms = np.random.default_rng(0).random((40, 24, 24, 3), np.float32)
  found = demo.draw(images, [coded], atoms)
  windows = np.lib.stride_tricks.sliding_window_view(found[..., 0], 384, axis=1)
  for image in [*images, *other]:
    line = demo.middle(image)[7, :, 0]
    assert line.shape == (384,)
    assert (windows == line).all(axis=-1).any()


@pytest.mark.slow
def test_the_line_is_true_of_the_files(tmp_path, monkeypatch, capsys):
  pytest.importorskip('constriction')
  monkeypatch.setattr(fit_scales, 'STEPS', 20)
  words = ['demo.py', f'--workdir={tmp_path}', '--steps=1']
  monkeypatch.setattr(sys, 'argv', words)
  demo.main()
  line = capsys.readouterr().out.splitlines()[-1]
  found = re.fullmatch(
    r'2 photographs that training has not seen: lasers (\S+) dB in (\S+) '
    r'bytes, JPEG (\S+) dB in (\S+) bytes; (\S+)/demo.png',
    line,
  )
  assert found
  files = tmp_path / 'files'
  sizes = {
    ending: [x.stat().st_size for x in sorted(files.glob(f'*.{ending}'))]
    for ending in ('lz', 'jpg')
  }
  assert f'{sum(sizes["lz"]):,}' == found[2]
  assert f'{sum(sizes["jpg"]):,}' == found[4]
  for own, jpeg in zip(sizes['lz'], sizes['jpg'], strict=True):
    assert own <= jpeg
  quality = [
    demo.psnr(image, np.asarray(Image.open(files / f'{i}.jpg')))
    for i, image in enumerate((chelsea(), coffee()))
  ]
  assert f'{np.mean(quality):.1f}' == found[3]
  assert float(found[1]) > float(found[3]) + 1  # from the cosines alone
  with Image.open(tmp_path / 'demo.png') as picture:
    assert picture.width > 768
