"""JPEGs decoded by simplejpeg are those that Pillow decodes, bit for bit."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data

from lasers_jax.data import DataSettings, decoding, open_source, resize_shorter
from lasers_jax.data.decoding import decode
from lasers_jax.data.stored import Reduced
from lasers_jax.errors import InputError
from tests.data.made import rgb_profile, save

pytest.importorskip('simplejpeg', reason='simplejpeg is not installed')
_PHOTO = data.astronaut()
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def _jpeg(image=_PHOTO, **options):
  file = io.BytesIO()
  picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
  picture.save(file, 'JPEG', **options)
  return file.getvalue()


def _by_pillow(file, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(decoding, 'simplejpeg', None)
    return _decoded(file)


def _decoded(file):
  try:
    return decode(io.BytesIO(file))
  except (OSError, SyntaxError, ValueError) as error:
    return str(error)


def _is_by_simplejpeg(file):
  with Image.open(io.BytesIO(file)) as image:
    return decoding._by_simplejpeg(image) is not None


def _check(files, monkeypatch):
  """Compares the two; returns how many simplejpeg decoded."""
  for file in files:
    ours, theirs = _decoded(file), _by_pillow(file, monkeypatch)
    np.testing.assert_array_equal(ours, theirs)
  return sum(map(_is_by_simplejpeg, files))


@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:2', '4:2:0', '4:1:1'])
def test_sizes_and_qualities(subsampling, monkeypatch):
  shapes = itertools.product((1, 8, 15, 33, 100), (1, 7, 16, 31, 90))
  files = [
    _jpeg(_PHOTO[90 : 90 + height, 200 : 200 + width],
          subsampling=subsampling, quality=quality, progressive=progressive)
    for (height, width), quality, progressive in itertools.product(
      shapes, (40, 92), (False, True)
    )
  ]  # fmt: skip
  assert _check(files, monkeypatch) == len(files)


def test_kinds_that_are_left_to_pillow(monkeypatch):
  picture = Image.fromarray(_PHOTO[:77, :93])
  exif = Image.Exif()
  exif[0x0112] = 6
  files = [
    _jpeg(picture.convert('L')),
    _jpeg(picture.convert('CMYK')),
    _jpeg(picture, exif=exif),
    _jpeg(picture, icc_profile=rgb_profile()),
  ]
  assert _check(files, monkeypatch) == 0


def test_kinds_that_are_not(monkeypatch):
  picture, exif = Image.fromarray(_PHOTO[:77, :93]), Image.Exif()
  exif[0x0112] = 1
  files = [
    _jpeg(picture, exif=exif),
    _jpeg(picture, icc_profile=_SRGB),
    _jpeg(picture, icc_profile=rgb_profile()[:99]),
    _jpeg(picture, keep_rgb=True),
    _jpeg(picture, restart_marker_rows=1),
    _jpeg(picture) + b'junk',
  ]
  assert _check(files, monkeypatch) == len(files)


@pytest.mark.parametrize('progressive', [False, True])
def test_damaged_files(progressive, monkeypatch):
  rng = np.random.default_rng(0)
  whole = _jpeg(_PHOTO[:200, :200], progressive=progressive)
  files = [whole[:-n] for n in (1, 2, 3, 50, len(whole) // 2)]
  for _ in range(60):
    damaged = bytearray(whole)
    for place in rng.integers(200, len(whole), rng.integers(1, 9)):
      damaged[place] = rng.integers(256)
    files.append(bytes(damaged))
  files = [file for file in files if _opens(file)]
  assert 0 < _check(files, monkeypatch) < len(files)


def _opens(file):
  try:
    Image.open(io.BytesIO(file))
  except OSError:
    return False
  return True


def test_photographs(monkeypatch):
  files = [
    _jpeg(image, quality=95) for image in (data.coffee(), data.chelsea())
  ]
  assert _check(files, monkeypatch) == 2


@pytest.fixture
def photographs(tmp_path):
  for split in 'train', 'val', 'test':
    save(tmp_path / split / 'a.jpg', _PHOTO, quality=95)
    save(tmp_path / split / 'b.png', _PHOTO[:300])
  return f'folder:{tmp_path}'


def test_dct_scaling_changes_training_alone_and_little(photographs):
  whole = DataSettings(photographs, 64, resize=64, flip=False)
  scaled = DataSettings(
    photographs, 64, resize=64, flip=False, dct_scaling=True
  )
  batches = [x.train_pipeline(2, 0).batch(0)['image'] for x in (whole, scaled)]
  error = np.square(batches[0] - batches[1].astype(float)).mean((1, 2, 3))
  assert sorted(error > 0) == [False, True]  # the PNG is as it was
  assert 10 * np.log10(255**2 / error.max()) > 35
  for split in 'validation', 'test':
    one, other = (
      next(x.evaluation_batches(x.open(split), 2, 1)) for x in (whole, scaled)
    )
    np.testing.assert_array_equal(one['image'], other['image'])
  assert scaled.train_pipeline(2, 0).fingerprint == (
    whole.train_pipeline(2, 0).fingerprint
  )


@pytest.mark.parametrize('turn', [1, 6])
@pytest.mark.parametrize(
  'shape', [(341, 512), (512, 341), (300, 300), (70, 90)]
)
def test_dct_scaling_keeps_sizes(tmp_path, shape, turn):
  exif = Image.Exif()
  exif[0x0112] = turn
  image = _PHOTO[: shape[0], : shape[1]]
  save(tmp_path / 'a.jpg', image, quality=95, exif=exif)
  source = open_source(f'folder:{tmp_path}', 'all')
  whole = resize_shorter(source[0]['image'], 64)
  scaled = Reduced(source, 64)[0]['image']
  assert whole.shape == scaled.shape
  error = np.square(whole - scaled.astype(float)).mean()
  assert 10 * np.log10(255**2 / max(error, 1e-9)) > 33


def test_dct_scaling_without_a_size_is_refused(photographs):
  settings = DataSettings(photographs, 64, dct_scaling=True)
  with pytest.raises(InputError, match='dct_scaling=True needs data.resize'):
    settings.train_pipeline(2, 0)
