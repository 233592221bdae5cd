"""Restorations without a model, by numbers and by hand."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from lasers_jax.degradations import DEGRADATIONS, in_evaluation
from lasers_jax.degradations.baselines import Missing, baselines
from lasers_jax.metrics import restoration, similarity
from tests import tiny

KODAK = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'kodak'


def restored(settings, image, index=0):
  """The image by each method that is there."""
  degraded = in_evaluation(settings, image, index)
  observed = settings.observed(image, degraded)
  known = degraded.known[..., 0] > 0
  return {
    name: np.asarray(restore(observed, known))
    for name, restore in baselines(settings).items()
    if not isinstance(restore, Missing)
  }


def rounded(image):
  return np.round(255 * image.clip(0, 1)).astype(np.float32)[None] / 255


# Those in RGB are also of Pillow alone, both ways. Means over the 24 whole
# images stand in docs/results/kodak-restorations.json.
@pytest.mark.skipif(not KODAK.is_dir(), reason='no data beside the checkout')
@pytest.mark.parametrize(
  ('scale', 'rgb', 'luma'), [(2, 33.17, 34.61), (4, 28.28, 29.79)]
)
def test_bicubic_has_the_numbers_of_kodak(scale, rgb, luma):
  image = np.asarray(Image.open(KODAK / 'kodim23.png'))[128:384, 256:512]
  settings = DEGRADATIONS['superres'](scale=scale)
  made, truth = rounded(restored(settings, image)['bicubic']), image[None] / 255
  found = similarity.psnr(truth.astype(np.float32), made)
  np.testing.assert_allclose(found, rgb, atol=0.01)
  found = restoration.psnr_y(truth.astype(np.float32), made, border=scale)
  np.testing.assert_allclose(found, luma, atol=0.01)


def test_bicubic_is_the_input_and_lanczos_is_better():
  image = np.asarray(Image.fromarray(tiny.images(1)[0]).resize((64, 64)))
  settings = DEGRADATIONS['superres'](scale=2)
  made = restored(settings, image)
  inputs = in_evaluation(settings, image, 0).inputs
  off = abs(rounded(made['bicubic'])[0] - inputs)
  assert off.max() < 1.01 / 255  # half-way between two values
  errors = {k: np.mean((x - image / 255) ** 2) for k, x in made.items()}
  assert errors['lanczos'] < errors['bicubic'] < errors['nearest']


@pytest.mark.parametrize('mask', ['centre', 'pixels'])
def test_known_pixels_stay(mask):
  image = tiny.images(1)[0]
  settings = DEGRADATIONS['inpaint'](mask=mask)
  known = in_evaluation(settings, image, 0).known[..., 0] > 0
  made = restored(settings, image)
  assert {'mean', 'biharmonic'} <= made.keys()
  for name, x in made.items():
    np.testing.assert_allclose(255 * x[known], image[known], atol=0.01)
    assert np.isfinite(x).all(), name
  colour = image[known].mean(axis=0)
  np.testing.assert_allclose(
    255 * made['mean'][~known], np.tile(colour, (np.sum(~known), 1)), rtol=1e-4
  )


def test_an_image_without_anything_known_or_lost():
  image = tiny.images(1)[0]
  for share in 0.0, 1.0:
    settings = DEGRADATIONS['inpaint'](mask='pixels', share=share)
    degraded = in_evaluation(settings, image, 0)
    for name in 'mean', 'biharmonic':
      restore = baselines(settings)[name]
      if share == 1 and name == 'biharmonic':
        continue  # nothing to go on
      made = restore(degraded.inputs[..., :3], degraded.known[..., 0] > 0)
      assert np.isfinite(made).all()


@pytest.mark.parametrize('sigma', [(25.0,), (15.0, 50.0)])
def test_noise_is_less_than_before(sigma):
  image = np.asarray(Image.fromarray(tiny.images(1)[0]).resize((48, 48)))
  settings = DEGRADATIONS['denoise'](sigma=sigma)
  noisy = in_evaluation(settings, image, 0).inputs
  before = np.mean((noisy - image / 255) ** 2)
  made = restored(settings, image)
  assert made.keys() == {'tv', 'nlm'}
  for x in made.values():
    assert np.mean((x - image / 255) ** 2) < before / 2


def test_a_library_that_is_missing_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'cv2', None)
  for name in 'telea', 'navier_stokes':
    found = baselines(DEGRADATIONS['inpaint']())[name]
    assert found.reason == (
      'OpenCV is not installed: pip install opencv-python-headless'
    )


@pytest.mark.skipif(
  importlib.util.find_spec('cv2') is None, reason='OpenCV is not installed'
)
def test_opencv_fills_a_plane():
  image = np.full((16, 16, 3), (10, 120, 240), np.uint8)
  made = restored(DEGRADATIONS['inpaint'](mask='centre'), image)
  for name in 'telea', 'navier_stokes':
    np.testing.assert_allclose(255 * made[name], image, atol=2)
