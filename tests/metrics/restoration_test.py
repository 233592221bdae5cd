"""Metrics of restorations against scikit-image and numbers by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage import color

from lasers_jax.metrics import restoration


def pair(h=12, w=16):
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 2, h, w, 3), np.float32)
  return a, (a + 0.1 * b).clip(0, 1)


def luma(x):
  return color.rgb2ycbcr(x)[..., 0] / 255  # BT.601, studio range


@pytest.mark.parametrize('border', [0, 2])
def test_psnr_of_luma(border):
  a, b = pair()
  cut = np.s_[:, border : 12 - border, border : 16 - border]
  error = np.mean((luma(a) - luma(b))[cut] ** 2, axis=(1, 2))
  found = restoration.psnr_y(a, b, border=border)
  np.testing.assert_allclose(found, -10 * np.log10(error), atol=1e-3)


def test_psnr_of_luma_reads_no_padding():
  a, b = pair()
  alone = restoration.psnr_y(a[:, :8, :9], b[:, :8, :9], border=2)
  sizes = jnp.array([[8, 9], [8, 9]])
  found = restoration.psnr_y(a, b, sizes, 2)
  np.testing.assert_allclose(found, alone, atol=1e-4)


def test_the_mean_in_a_hole_by_hand():
  image = np.zeros((1, 4, 4, 3), np.float32)
  image[0, 1, 1], image[0, 1, 2] = 0.5, 0.1
  known = np.ones((1, 4, 4, 1), np.float32)
  known[0, 1, 1:3] = 0
  filled = np.where(known, image, 0.3)
  # Errors of 0.2 in two pixels of 16.
  found = restoration.psnr_hole(image, filled, known)
  np.testing.assert_allclose(found, -10 * np.log10(0.04), atol=1e-4)
  np.testing.assert_allclose(
    restoration.l1_hole(image, filled, known), 0.2, atol=1e-6
  )
  share = restoration.hole_share(jnp.asarray(known))
  np.testing.assert_allclose(share, 2 / 16)
  # Once the known is pasted, the whole differs by 10 log10(1 / share).
  whole = -10 * np.log10(np.mean((image - filled) ** 2))
  np.testing.assert_allclose(whole - found, 10 * np.log10(8), atol=1e-4)


def test_holes_count_inside_sizes_alone():
  image = np.zeros((1, 4, 4, 3), np.float32)
  known, sizes = np.zeros((1, 4, 4, 1), np.float32), jnp.array([[2, 2]])
  known[0, 0, 0] = 1
  other = image.copy()
  other[0, :2, :2], other[0, 2:] = 0.1, 0.9
  found = restoration.psnr_hole(image, other, known, sizes)
  np.testing.assert_allclose(found, 20, atol=1e-3)
  share = restoration.hole_share(jnp.asarray(known), sizes)
  np.testing.assert_allclose(share, 3 / 4)


def test_without_holes_nothing_is_wrong():
  image, known = np.zeros((1, 4, 4, 3)), np.ones((1, 4, 4, 1))
  assert restoration.psnr_hole(image, image + 1, known) == 100
  assert restoration.l1_hole(image, image + 1, known) == 0


def test_chroma_is_that_of_lab():
  a, b = pair()
  off = (color.rgb2lab(a) - color.rgb2lab(b))[..., 1:]
  expected = np.sqrt((off**2).sum(-1)).mean(axis=(1, 2))
  found = restoration.chroma_error(a, b)
  np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_colourfulness():
  grey = jnp.broadcast_to(pair()[0][..., :1], (2, 12, 16, 3))
  np.testing.assert_allclose(restoration.colourfulness(grey), 0, atol=1e-3)
  a = pair()[0]
  red, green, blue = np.moveaxis(255 * a.astype(np.float64), -1, 0)
  first, second = red - green, (red + green) / 2 - blue
  axes = (1, 2)
  expected = np.hypot(first.std(axes), second.std(axes))
  expected += 0.3 * np.hypot(first.mean(axes), second.mean(axes))
  np.testing.assert_allclose(restoration.colourfulness(a), expected, rtol=1e-4)
