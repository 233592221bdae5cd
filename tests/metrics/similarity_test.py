import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lasers_jax.core.images import to_uint8_range
from lasers_jax.metrics import similarity

SHAPE = (3, 24, 20, 3)


def _smooth(rng, shape=SHAPE):
  """Random images with structure: coarse blocks plus a little noise."""
  batch, height, width, channels = shape
  coarse = rng.uniform(0.2, 0.8, (batch, height // 4, width // 4, channels))
  images = coarse.repeat(4, axis=1).repeat(4, axis=2)
  return np.clip(images + rng.normal(0, 0.02, shape), 0, 1).astype(np.float32)


def _noisy(images, rng, sigma):
  noisy = images + sigma * rng.standard_normal(images.shape)
  return np.clip(noisy, 0, 1).astype(np.float32)


@pytest.fixture
def pair():
  rng = np.random.default_rng(0)
  images = _smooth(rng)
  return images, _noisy(images, rng, 0.1)


def _skimage_psnr(a, b):
  return peak_signal_noise_ratio(
    a.astype(np.float64), b.astype(np.float64), data_range=1
  )


def _skimage_ssim(a, b):
  return structural_similarity(
    a.astype(np.float64),
    b.astype(np.float64),
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
    data_range=1,
    channel_axis=-1,
  )


def test_to_uint8_range_is_what_a_file_holds():
  x = np.array([-0.5, 0, 0.499 / 255, 0.501 / 255, 0.3, 1, 7], np.float32)
  file = np.round(np.clip(x, 0, 1) * 255).astype(np.uint8)
  np.testing.assert_array_equal(
    to_uint8_range(x), file.astype(np.float32) / 255
  )
  np.testing.assert_array_equal(file, [0, 0, 0, 1, 76, 255, 255])


def test_to_uint8_range_changes_no_file_value():
  levels = np.arange(256, dtype=np.uint8)
  once = to_uint8_range(levels)
  np.testing.assert_array_equal(np.round(np.asarray(once) * 255), levels)
  np.testing.assert_array_equal(to_uint8_range(once), once)
  assert once.dtype == jnp.float32


def test_to_uint8_range_of_bfloat16_is_float32():
  x = to_uint8_range(jnp.array([0.7], jnp.bfloat16))
  assert x.dtype == jnp.float32
  # 0.69921875 is the nearest bfloat16; 178 / 255 is none.
  np.testing.assert_array_equal(x, np.float32([178 / 255]))


@pytest.mark.parametrize(
  'ours, theirs, tolerance',
  [
    (similarity.psnr, _skimage_psnr, 1e-4),
    (similarity.ssim, _skimage_ssim, 2e-5),
  ],
)
def test_agrees_with_skimage(ours, theirs, tolerance, pair):
  a, b = pair
  expected = [theirs(x, y) for x, y in zip(a, b, strict=True)]
  assert ours(a, b).shape == (len(a),)
  assert np.ptp(expected) > 10 * tolerance
  np.testing.assert_allclose(ours(a, b), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize('measure', [similarity.psnr, similarity.ssim])
class TestPerImage:
  def test_uint8_equals_float(self, measure, pair):
    a, b = (np.round(x * 255).astype(np.uint8) for x in pair)
    floats = (x.astype(np.float32) / 255 for x in (a, b))
    np.testing.assert_allclose(measure(a, b), measure(*floats), rtol=1e-6)

  def test_symmetric(self, measure, pair):
    a, b = pair
    np.testing.assert_allclose(measure(a, b), measure(b, a), rtol=1e-6)

  def test_each_image_for_itself(self, measure, pair):
    a, b = pair
    order = [2, 0, 1]
    np.testing.assert_allclose(
      measure(a[order], b[order]), measure(a, b)[np.array(order)], rtol=1e-6
    )

  def test_falls_with_noise(self, measure):
    images = _smooth(np.random.default_rng(1))
    values = [
      measure(images, _noisy(images, np.random.default_rng(2), sigma))
      for sigma in (0, 0.01, 0.03, 0.1, 0.3)
    ]
    assert np.all(np.diff(np.stack(values), axis=0) < 0)

  def test_shapes_must_agree(self, measure, pair):
    a, b = pair
    with pytest.raises(ValueError, match='one shape'):
      measure(a, b[:1])
    with pytest.raises(ValueError, match='one shape'):
      measure(a[0], b[0])

  def test_integers_other_than_uint8_are_refused(self, measure, pair):
    a, b = (np.round(x * 255).astype(np.int32) for x in pair)
    with pytest.raises(ValueError, match='uint8 or float'):
      measure(a, b)


def test_identical_images(pair):
  a, _ = pair
  np.testing.assert_array_equal(similarity.psnr(a, a), np.full(len(a), 100.0))
  np.testing.assert_allclose(similarity.ssim(a, a), np.ones(len(a)), atol=1e-6)


def test_psnr_of_a_known_error():
  black = np.zeros(SHAPE, np.float32)
  np.testing.assert_allclose(
    similarity.psnr(black, black + 0.1), np.full(3, 20.0), atol=1e-4
  )
  np.testing.assert_allclose(
    similarity.psnr(black, black + 1), np.zeros(3), atol=1e-4
  )


def test_psnr_of_large_images_is_exact_in_float32():
  rng = np.random.default_rng(3)
  a = rng.random((1, 512, 512, 3), np.float32)
  b = _noisy(a, rng, 0.05)
  np.testing.assert_allclose(
    similarity.psnr(a, b), [_skimage_psnr(a[0], b[0])], atol=1e-3
  )


def test_ssim_of_constant_images_compares_luminance():
  a, b = 0.25, 0.75
  flat = np.ones(SHAPE, np.float32)
  expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
  np.testing.assert_allclose(
    similarity.ssim(a * flat, b * flat), np.full(3, expected), atol=1e-5
  )
  np.testing.assert_allclose(
    similarity.ssim(b * flat, b * flat), np.ones(3), atol=1e-6
  )


def test_ssim_needs_one_window():
  one = np.full((1, 11, 11, 3), 0.5, np.float32)
  assert similarity.ssim(one, one).shape == (1,)
  with pytest.raises(ValueError, match='at least 11x11'):
    similarity.ssim(one[:, :10], one[:, :10])
  with pytest.raises(ValueError, match='at least 11x11'):
    similarity.ssim(one[:, :, :10], one[:, :, :10])


GREY = np.random.default_rng(12).random(SHAPE)


@pytest.mark.parametrize(
  'image',
  [
    0.995 + 0.004 * GREY,  # nearly white
    0.004 * GREY,
    np.full(SHAPE, 0.9),
    np.round(GREY),  # black and white
    np.concatenate([np.round(GREY[:, :12]), 0.99 + 0.01 * GREY[:, 12:]], 1),
  ],
  ids=['white', 'black', 'flat', 'contrast', 'both'],
)
@pytest.mark.parametrize('error', [1e-3, 1e-2])
def test_what_ssim_loses_is_that_of_float64(image, error):
  noise = error * np.random.default_rng(13).standard_normal(SHAPE)
  a, b = (x.clip(0, 1).astype(np.float32) for x in (image, image + noise))
  expected = [1 - _skimage_ssim(x, y) for x, y in zip(a, b, strict=True)]
  lost = 1 - np.asarray(similarity.ssim(a, b), np.float64)
  # SSIM itself is a float32 below 1.
  np.testing.assert_allclose(lost, expected, rtol=2e-4, atol=1e-7)


def test_ms_ssim_of_nearly_white_images_is_that_of_float64(large_pair):
  a, b = (0.99 + 0.01 * x for x in large_pair)
  expected = [1 - _numpy_ms_ssim(x, y) for x, y in zip(a, b, strict=True)]
  lost = 1 - np.asarray(similarity.ms_ssim(a, b), np.float64)
  np.testing.assert_allclose(lost, expected, rtol=1e-3, atol=2e-7)


# Odd at the first scale and at later ones; one shape, to compile once.
LARGE = (2, 179, 214, 3)


@pytest.fixture(scope='module')
def large_pair():
  """Images with structure at all scales, and the same with noise and blur."""
  rng = np.random.default_rng(10)
  images = np.full(LARGE, 0.5)
  for sigma in (0.6, 2, 5, 12):
    layer = ndimage.gaussian_filter(
      rng.normal(size=LARGE), (0, sigma, sigma, 0), mode='wrap'
    )
    images += 0.1 * layer / layer.std()
  images = images.clip(0, 1).astype(np.float32)
  blurred = ndimage.gaussian_filter(images, (0, 2, 2, 0))
  return images, np.stack([blurred[0], _noisy(images[1], rng, 0.2)])


def _numpy_ms_ssim(a, b):
  """The formula of Wang et al. for one image, in float64."""
  a, b = a.astype(np.float64), b.astype(np.float64)

  def window(x):
    for axis in (0, 1):
      x = ndimage.gaussian_filter1d(x, 1.5, axis, radius=5)
    return x[5:-5, 5:-5]

  def half(x):
    x = x[: len(x) // 2 * 2, : x.shape[1] // 2 * 2]
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4

  result = 1.0
  for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
    m, n = window(a), window(b)
    variances = window((a - 0.5) ** 2) - (m - 0.5) ** 2
    variances += window((b - 0.5) ** 2) - (n - 0.5) ** 2
    covariance = window((a - 0.5) * (b - 0.5)) - (m - 0.5) * (n - 0.5)
    similar = (2 * covariance + 9e-4) / (variances + 9e-4)
    if scale == 4:
      similar *= (2 * m * n + 1e-4) / (m**2 + n**2 + 1e-4)
    result = result * similar.mean(axis=(0, 1)) ** weight
    a, b = half(a), half(b)
  return result.mean()


def test_ms_ssim_agrees_with_the_formula(large_pair):
  a, b = large_pair
  expected = [_numpy_ms_ssim(x, y) for x, y in zip(a, b, strict=True)]
  assert all(0.5 < value < 0.95 for value in expected)
  np.testing.assert_allclose(similarity.ms_ssim(a, b), expected, atol=2e-5)
  np.testing.assert_allclose(similarity.ms_ssim(b, a), expected, atol=2e-5)
  swapped = similarity.ms_ssim(a[::-1], b[::-1])
  np.testing.assert_allclose(swapped, expected[::-1], atol=2e-5)


def test_ms_ssim_of_identical_and_of_inverted_images(large_pair):
  a, _ = large_pair
  np.testing.assert_allclose(similarity.ms_ssim(a, a), np.ones(2), atol=1e-6)
  np.testing.assert_array_equal(similarity.ms_ssim(a, 1 - a), np.zeros(2))


def test_ms_ssim_falls_with_noise(large_pair):
  a, _ = large_pair
  values = [
    similarity.ms_ssim(a, _noisy(a, np.random.default_rng(11), sigma))
    for sigma in (0, 0.03, 0.1, 0.3)
  ]
  assert np.all(np.diff(np.stack(values), axis=0) < 0)


def test_ms_ssim_of_uint8_equals_float(large_pair):
  a, b = (np.round(x * 255).astype(np.uint8) for x in large_pair)
  floats = (x.astype(np.float32) / 255 for x in (a, b))
  np.testing.assert_allclose(
    similarity.ms_ssim(a, b), similarity.ms_ssim(*floats), rtol=1e-6
  )


def test_ms_ssim_needs_one_window_at_the_last_scale():
  for shape in ((1, 175, 176, 3), (1, 176, 175, 3)):
    with pytest.raises(ValueError, match='at least 176x176'):
      similarity.ms_ssim(
        np.zeros(shape, np.float32), np.zeros(shape, np.float32)
      )
  smallest = jax.ShapeDtypeStruct((1, 176, 176, 3), jnp.float32)
  assert jax.eval_shape(similarity.ms_ssim, smallest, smallest).shape == (1,)
