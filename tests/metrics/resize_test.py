import numpy as np
import pytest

from lasers_jax.metrics.resize import clean_resize, cmmd_resize


def _images(seed, *shape):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _cubic(t):
  """Keys's cubic with a = -1/2, of support 2."""
  t = np.abs(t)
  near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
  return np.where(t < 1, near, np.where(t < 2, far, 0))


def _filter(size, side):
  """Antialiased bicubic of an axis, [side, size]; the kernel ends at edges."""
  scale = size / side
  centres = (np.arange(side) + 0.5) * scale
  distances = np.arange(size) + 0.5 - centres[:, None]
  weights = _cubic(distances / max(scale, 1))
  return weights / weights.sum(axis=1, keepdims=True)


def _bicubic(images, side):
  """What the two functions hold to, in float64 and not clipped."""
  rows, columns = (_filter(size, side) for size in images.shape[1:3])
  return np.einsum('yh,bhwc,xw->byxc', rows, images.astype(float), columns)


@pytest.mark.parametrize('h, w, side', [(64, 48, 17), (9, 12, 31), (20, 7, 20)])
def test_clean_resize_is_antialiased_bicubic_of_floats(h, w, side):
  images = _images(0, 2, h, w, 3)
  resized = clean_resize(images, side)
  assert resized.dtype == np.float32
  expected = _bicubic(images, side).clip(0, 255)
  np.testing.assert_allclose(resized, expected, atol=2e-3)


def test_clean_resize_neither_rounds_nor_overshoots():
  images = np.zeros((1, 16, 16, 3), np.uint8)
  images[:, :, 8:] = 255
  resized = clean_resize(images, 31)
  assert _bicubic(images, 31).max() > 260
  assert resized.min() == 0
  assert resized.max() == 255
  assert np.abs(resized - np.round(resized)).max() > 0.1


def test_clean_resize_to_the_same_side_changes_nothing():
  images = _images(1, 2, 24, 24, 3)
  np.testing.assert_array_equal(clean_resize(images, 24), images)


@pytest.mark.parametrize(
  'h, w, rows, columns',
  [
    (40, 30, slice(5, 35), slice(None)),
    (25, 32, slice(None), slice(3, 28)),
    (20, 20, slice(None), slice(None)),
  ],
)
def test_cmmd_resize_takes_the_centre(h, w, rows, columns):
  # Values that overshoot nowhere: Pillow clips and rounds after each axis.
  images = _images(2, 2, h, w, 3) // 2 + 64
  resized = cmmd_resize(images, 14)
  assert resized.dtype == np.uint8
  expected = _bicubic(images[:, rows, columns], 14)
  np.testing.assert_allclose(resized, expected, atol=1.3)


def test_cmmd_resize_gives_336_pixels_and_leaves_those_alone():
  images = _images(3, 1, 336, 338, 3)
  np.testing.assert_array_equal(cmmd_resize(images), images[:, :, 1:-1])


@pytest.mark.parametrize('resize', [clean_resize, cmmd_resize])
def test_each_image_for_itself(resize):
  images = _images(4, 3, 12, 10, 3)
  np.testing.assert_array_equal(
    resize(images, 7), [resize(x[None], 7)[0] for x in images]
  )
  assert resize(images[:0], 7).shape == (0, 7, 7, 3)


@pytest.mark.parametrize('resize', [clean_resize, cmmd_resize])
@pytest.mark.parametrize(
  'images',
  [
    np.zeros((1, 8, 8, 3), np.float32),
    np.zeros((8, 8, 3), np.uint8),
    np.zeros((1, 8, 8, 1), np.uint8),
  ],
)
def test_other_images_are_refused(resize, images):
  with pytest.raises(ValueError, match='must be uint8'):
    resize(images, 4)
