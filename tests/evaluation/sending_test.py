"""Small images are sent within their bits, and enlarged."""

import numpy as np
from PIL import Image

from lasers_jax.degradations import DEGRADATIONS, in_evaluation
from lasers_jax.evaluation.rate_distortion import Coder
from lasers_jax.evaluation.sending import WEBP, send_small
from tests import tiny

KNOWN = np.zeros((128, 128), bool)


def test_a_small_image_is_sent_within_its_bits():
  image = np.asarray(Image.fromarray(tiny.images(1)[0]).resize((128, 128)))
  settings = DEGRADATIONS['superres'](scale=2)
  degraded = in_evaluation(settings, image, 0)
  small = settings.observed(image, degraded)
  truth, errors = image / 255, []
  for asked in 0.2, 0.5, 1e-6:
    made, bits = send_small(WEBP, asked, small, KNOWN)
    assert made.shape == (128, 128, 3)
    assert bits <= asked or asked == 1e-6  # no file is so small
    errors.append(np.mean((made - truth) ** 2))
  assert errors[1] < errors[0] < errors[2]


def test_the_largest_file_within_the_bits_is_taken():
  plane = np.zeros((64, 64, 3), np.uint8)

  def coder(size):
    return Coder('', '', lambda _: bytes(size), lambda data: plane + len(data))

  coders = [coder(size) for size in (10, 100, 200)]
  for bits, size in (0.01, 10), (8 * 100 / 128**2, 100), (0.09, 100), (1, 200):
    made, spent = send_small(coders, bits, plane / 255, KNOWN)
    assert spent == 8 * size / 128**2
    np.testing.assert_allclose(255 * made, size, rtol=1e-6)
