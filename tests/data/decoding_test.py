import concurrent.futures
import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from lasers_jax.data.decoding import decode, look
from tests.data.made import (
  ADOBE,
  SRGB,
  cmyk_profile,
  grey_profile,
  noise,
  rgb_profile,
  save,
  to_srgb,
)

_SRGB_FILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def test_decode_keeps_rgb(tmp_path):
  image = noise()
  save(tmp_path / 'a.png', image)
  np.testing.assert_array_equal(decode(tmp_path / 'a.png'), image)


@pytest.mark.parametrize('mode', ['L', 'P', '1', 'CMYK', 'LA', 'YCbCr'])
def test_decode_gives_rgb_for_every_mode(tmp_path, mode):
  name = 'a.tif' if mode in ('CMYK', 'YCbCr') else 'a.png'
  picture = Image.fromarray(noise()).convert(mode)
  picture.save(tmp_path / name)
  image = decode(tmp_path / name)
  assert image.shape == (12, 10, 3)
  assert image.dtype == np.uint8
  if mode != 'LA':  # its alpha is opaque
    np.testing.assert_array_equal(image, np.asarray(picture.convert('RGB')))


def test_decode_lays_transparency_over_white(tmp_path):
  image = np.zeros((4, 4, 4), np.uint8)
  image[..., 0] = 200
  image[2:, :, 3] = 255
  image[0, 0] = 100, 0, 0, 128
  save(tmp_path / 'a.png', image)
  rgb = decode(tmp_path / 'a.png')
  assert (rgb[1] == 255).all()
  assert (rgb[2:] == (200, 0, 0)).all()
  # 100 and 0 at half opacity over 255
  np.testing.assert_allclose(rgb[0, 0], (177, 127, 127), atol=1)


def test_decode_lays_a_transparent_palette_colour_over_white(tmp_path):
  picture = Image.new('P', (4, 4), 0)
  picture.putpalette([10, 20, 30, 40, 50, 60])
  picture.putpixel((0, 0), 1)
  picture.save(tmp_path / 'a.png', transparency=0)
  image = decode(tmp_path / 'a.png')
  assert (image[0, 0] == (40, 50, 60)).all()
  assert (image[1:] == 255).all()


def test_decode_scales_16_bit_grey(tmp_path):
  grey = np.array([[0, 255, 51200, 65535]], np.uint16)
  save(tmp_path / 'a.png', grey)
  image = decode(tmp_path / 'a.png')
  np.testing.assert_array_equal(image[0, :, 0], [0, 1, 199, 255])
  assert (image == image[..., :1]).all()


def test_decode_turns_by_exif(tmp_path):
  image = noise()
  exif = Image.Exif()
  exif[0x0112] = 6  # shown after a quarter turn to the right
  save(tmp_path / 'a.png', image, exif=exif)
  expected = np.rot90(image, -1)
  np.testing.assert_array_equal(decode(tmp_path / 'a.png'), expected)


def test_decode_takes_the_first_frame(tmp_path):
  frames = [Image.new('RGB', (6, 5), colour) for colour in ('red', 'blue')]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  assert (decode(tmp_path / 'a.gif') == (255, 0, 0)).all()


# Colour profiles


def _assert_near(found, expected):
  error = np.abs(found - np.broadcast_to(expected, found.shape))
  # A table of littleCMS, and 8 bits, err most where curves are steep.
  assert error.mean() < 0.7
  assert error.max() < 5


@pytest.mark.parametrize('ending', ['png', 'tif', 'webp', 'jpg'])
@pytest.mark.parametrize(
  ('gamma', 'primaries'), [(2.2, ADOBE), (1.8, SRGB), (1.0, ADOBE)]
)
def test_colours_become_srgb(tmp_path, ending, gamma, primaries):
  path = tmp_path / f'a.{ending}'
  options = {'lossless': True} if ending == 'webp' else {}
  profile = rgb_profile(gamma, primaries)
  save(path, noise(64, 64), icc_profile=profile, **options)
  stored = np.asarray(Image.open(path).convert('RGB'))
  _assert_near(decode(path), to_srgb(stored, gamma, primaries))
  assert look(path).profile is None


@pytest.mark.parametrize('mode', ['L', 'LA', '1', 'I;16'])
def test_grey_becomes_srgb(tmp_path, mode):
  grey = noise(64, 64, channels=1)
  if mode == 'I;16':
    picture = Image.fromarray(grey.astype(np.uint16) * 257)
  else:
    picture = Image.fromarray(grey).convert(mode)
    grey = np.asarray(picture.convert('L'))
  picture.save(tmp_path / 'a.png', icc_profile=grey_profile(1.8))
  expected = to_srgb(np.repeat(grey[..., None], 3, -1), 1.8, SRGB)
  _assert_near(decode(tmp_path / 'a.png'), expected)


def test_ink_becomes_srgb(tmp_path):
  inks = np.zeros((2, 2, 4), np.uint8)
  inks[0, 1, 3] = inks[1, 0, 0] = 255
  inks[1, 1] = 255
  picture = Image.fromarray(inks, 'CMYK')
  picture.save(tmp_path / 'a.tif', icc_profile=cmyk_profile())
  grey = decode(tmp_path / 'a.tif')
  assert np.ptp(grey.astype(int), axis=-1).max() <= 1
  # Lightness 100, 50 and 50; the darkest that there is becomes black.
  np.testing.assert_allclose(grey[..., 0], [[255, 119], [119, 0]], atol=2)


def test_transparency_is_laid_over_white_in_srgb(tmp_path):
  image = noise(32, 32, 4)
  image[..., 3] = [0, 255] * 16
  save(tmp_path / 'a.png', image, icc_profile=rgb_profile())
  found = decode(tmp_path / 'a.png')
  assert (found[:, ::2] == 255).all()
  _assert_near(found[:, 1::2], to_srgb(image[:, 1::2, :3]))


def test_a_palette_becomes_srgb(tmp_path):
  picture = Image.fromarray(noise(32, 32)).quantize(16)
  picture.save(tmp_path / 'a.png', icc_profile=rgb_profile())
  _assert_near(decode(tmp_path / 'a.png'), to_srgb(picture.convert('RGB')))


def test_a_grey_picture_may_have_a_profile_of_colours(tmp_path):
  grey = noise(32, 32, channels=1)
  save(tmp_path / 'a.png', grey, icc_profile=rgb_profile(1.8, SRGB))
  expected = to_srgb(np.repeat(grey[..., None], 3, -1), 1.8, SRGB)
  _assert_near(decode(tmp_path / 'a.png'), expected)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'P'])
def test_srgb_stays_as_it_is(tmp_path, mode):
  picture = Image.fromarray(noise(64, 64)).convert(mode)
  picture.save(tmp_path / 'plain.png')
  picture.save(tmp_path / 'tagged.png', icc_profile=_SRGB_FILE)
  np.testing.assert_array_equal(
    decode(tmp_path / 'tagged.png'), decode(tmp_path / 'plain.png')
  )


@pytest.mark.parametrize(
  'profile',
  [
    b'no profile',
    rgb_profile()[:200],
    rgb_profile()[:36] + b'????' + rgb_profile()[40:],
    cmyk_profile(),
    grey_profile(),
  ],
  ids=['text', 'truncated', 'damaged', 'of ink', 'of grey'],
)
def test_a_profile_that_cannot_be_used_is_ignored(tmp_path, profile):
  image = noise(32, 32)
  save(tmp_path / 'a.png', image, icc_profile=profile)
  np.testing.assert_array_equal(decode(tmp_path / 'a.png'), image)
  found = look(tmp_path / 'a.png')
  assert found[:3] == (32, 32, None)
  assert found.profile


def test_threads_share_a_transform(tmp_path):
  profile, paths = rgb_profile(), []
  for i in range(16):
    path = tmp_path / f'{i}.png'
    paths.append(save(path, noise(64, 64, seed=i), icc_profile=profile))
  alone = [decode(path) for path in paths]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    together = list(pool.map(decode, paths))
  np.testing.assert_array_equal(together, alone)


# What cannot be read


def test_a_picture_too_large_is_no_picture(tmp_path):
  path = tmp_path / 'large.png'
  Image.new('1', (20_000, 10_000)).save(path)
  with pytest.raises(ValueError, match='too large: more than 178,956,970 pix'):
    decode(path)
  assert look(path).fault.startswith('too large')


@pytest.mark.parametrize(
  ('error', 'said'),
  [
    (struct.error('unpack requires 4 bytes'), 'unpack requires 4 bytes'),
    (KeyError('no such tag'), 'no such tag'),
    (IndexError(), 'IndexError'),
    (MemoryError(), 'too large for the memory that is left'),
  ],
)
def test_whatever_a_reader_raises_is_one_of_three(monkeypatch, error, said):
  def fail(_):
    raise error

  monkeypatch.setattr(Image, 'open', fail)
  with pytest.raises(ValueError, match=said):
    decode(io.BytesIO())
  assert said in look('a.png').fault


def test_look_tells_the_size(tmp_path):
  for ending in 'png', 'jpg':
    path = save(tmp_path / f'a.{ending}', noise(33, 40))
    assert look(path) == (33, 40, None, None)
  half = path.read_bytes()
  path.write_bytes(half[: len(half) // 2])
  assert 'truncated' in look(path).fault
