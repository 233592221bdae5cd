import numpy as np
import pytest

from lasers_jax import coding

SCALES = np.array([4.0, 2.0, 0.5], np.float32)


@pytest.mark.parametrize('bits', [2, 5, 8, 12])
def test_the_error_is_at_most_half_a_step(bits):
  rng = np.random.default_rng(bits)
  coefficients = rng.uniform(-1, 1, (1000, 3)).astype(np.float32) * SCALES
  bins = coding.quantize(coefficients, SCALES, bits)
  back = coding.dequantize(bins, SCALES, bits)
  m = 2 ** (bits - 1) - 1
  assert np.abs(np.asarray(bins)).max() <= m
  assert (np.abs(back - coefficients) <= SCALES / m / 2 * 1.0001).all()


def test_integers_come_back():
  bins = np.arange(-127, 128, dtype=np.int32)[:, None].repeat(3, axis=1)
  back = coding.dequantize(bins, SCALES, 8)
  np.testing.assert_array_equal(coding.quantize(back, SCALES, 8), bins)


def test_zero_stays_zero_and_what_is_beyond_the_scale_is_clipped():
  coefficients = np.array([[0.0, 9.0, -9.0]], np.float32)
  bins = coding.quantize(coefficients, SCALES, 8)
  np.testing.assert_array_equal(bins, [[0, 127, -127]])
  np.testing.assert_allclose(
    coding.dequantize(bins, SCALES, 8), [[0, 2, -0.5]], rtol=1e-6
  )
