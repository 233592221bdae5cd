"""Measures of quality and of code usage: one value per image, then a mean.

Images are [B, H, W, 3], RGB, floats in [0, 1] or uint8 in 0..255; with `sizes`,
int32 [B, 2], the images are so high and wide, at the top left, and the rest is
padding that does not matter. What is done on the device is float32; histograms
and means are float64 on the host.
"""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lasers_jax.networks.masks import site_means

PSNR_CAP = 100.0  # dB; reached by an RMS error of 1e-5, 1/400 of a uint8 step
SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest scale first


@jax.jit
def to_uint8_range(x):
  """Returns float32 images as a PNG file would hold them: clipped and rounded.

  x: [...], nominally in [0, 1]; the result is n / 255 for a whole n. NaN stays
  NaN.
  """
  return jnp.round(jnp.clip(_unit(x), 0, 1) * 255) / 255


@jax.jit
def psnr(a, b, sizes=None):
  """Returns the peak signal-to-noise ratio of each image, [B], in dB, peak 1.

  a, b: [B, H, W, 3], float in [0, 1] or uint8. The squared error is averaged
  over pixels and channels (RGB, not luma). Capped at 100 dB, which is also the
  value of identical images, so that a mean over images stays finite. Raises
  ValueError where the shapes differ.
  """
  a, b = _pair(a, b)
  error = site_means(jnp.square(a - b), sizes).mean(axis=1)
  return -10 * jnp.log10(jnp.maximum(error, 10 ** (-PSNR_CAP / 10)))


@jax.jit
def ssim(a, b, sizes=None):
  """Returns the structural similarity of each image, [B], at most 1.

  a, b: [B, H, W, 3], float in [0, 1] or uint8. Gaussian window of 11x11 pixels,
  sigma 1.5, range 1, K1 = 0.01, K2 = 0.03, windows that lie wholly inside the
  image, mean over pixels and channels (Wang et al. 2004). Raises ValueError
  where the shapes differ or a side is under 11 pixels.
  """
  a, b = _pair(a, b)
  if min(a.shape[1:3]) < SSIM_WINDOW:
    raise ValueError(
      f'SSIM needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, '
      f'got {a.shape[1]}x{a.shape[2]}'
    )
  values = dm_pix.ssim(a, b, filter_fn=_gaussian_blur, return_map=True)
  return site_means(values, _windows(sizes)).mean(axis=1)


@jax.jit
def ms_ssim(a, b, sizes=None):
  """Returns the multi-scale structural similarity of each image, in [0, 1].

  a, b: [B, H, W, 3], float in [0, 1] or uint8. Five scales, each half as large
  by means of 2x2 pixels (an odd last row or column is left out), weights .0448,
  .2856, .3001, .2363, .1333; window, range and constants of `ssim`. The terms
  are means over windows, negative ones count as 0; then the mean over channels
  (Wang, Simoncelli and Bovik 2003). Raises ValueError where the shapes differ
  or a side is under 176 = 11 * 2^4 pixels, one window at the last scale.
  """
  a, b = _pair(a, b)
  scales = len(MS_SSIM_WEIGHTS)
  least = SSIM_WINDOW * 2 ** (scales - 1)
  if min(a.shape[1:3]) < least:
    raise ValueError(
      f'MS-SSIM needs images of at least {least}x{least} pixels, '
      f'got {a.shape[1]}x{a.shape[2]}'
    )
  product = 1.0
  for scale, weight in enumerate(MS_SSIM_WEIGHTS):
    luminance, contrast = _similarities(a, b)
    # Luminance counts at the last scale alone.
    term = contrast if scale < scales - 1 else luminance * contrast
    product *= jnp.maximum(site_means(term, _windows(sizes)), 0) ** weight
    a, b = (nn.avg_pool(x, (2, 2), (2, 2)) for x in (a, b))
    sizes = None if sizes is None else sizes // 2
  return product.mean(axis=-1)


def usage(counts):
  """Returns the share of codes that occur, in [0, 1]; 0 where nothing occurs.

  counts: [K], how often each code was used over the whole split.
  """
  return float(np.mean(_histogram(counts) > 0))


def perplexity(counts):
  """Returns the number of equally likely codes with the entropy of counts.

  counts: [K]. In [1, K]: 1 for a single code in use, K for a uniform histogram;
  0 where nothing was counted.
  """
  if not np.any(_histogram(counts)):
    return 0.0
  return float(2 ** entropy_bits(counts))


def entropy_bits(counts):
  """Returns the entropy of a histogram in bits per symbol, in [0, log2 K].

  counts: [K]; 0 where nothing was counted. An ideal coder that knows the
  histogram, and nothing of the context, spends this many bits.
  """
  counts = _histogram(counts)
  counts = counts[counts > 0]
  if counts.size < 2:
    return 0.0
  probabilities = counts / counts.sum()
  return float(-np.sum(probabilities * np.log2(probabilities)))


def bootstrap_interval(values, seed=0, draws=1000):
  """Returns (low, high), the 95 % percentile bootstrap interval of the mean.

  values: one number per image, in any order (the order does not matter);
  float64; memory for one draw at a time. A function of the values and the seed
  alone. A single value v gives (v, v); raises ValueError where there is none.
  """
  values = _sorted_values(values)
  rng = np.random.default_rng(seed)
  size = len(values)
  means = [values[rng.integers(size, size=size)].mean() for _ in range(draws)]
  low, high = np.percentile(means, (2.5, 97.5))
  return float(low), float(high)


def summarize(values):
  """Returns the mean of per-image values, its 95 % interval and their count.

  The keys are 'mean', 'low', 'high' (float) and 'count' (int). Raises
  ValueError where there is no value.
  """
  low, high = bootstrap_interval(values)
  values = _sorted_values(values)
  return {
    'mean': float(values.mean()),
    'low': low,
    'high': high,
    'count': len(values),
  }


def _unit(x):
  if x.dtype == jnp.uint8:
    return x.astype(jnp.float32) / 255
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f'images must be uint8 or float, got {x.dtype}')
  return x.astype(jnp.float32)


def _pair(a, b):
  if a.ndim != 4 or a.shape != b.shape:
    raise ValueError(
      f'expected two batches [B, H, W, C] of one shape, '
      f'got {a.shape} and {b.shape}'
    )
  return _unit(a), _unit(b)


def _windows(sizes):
  """How many windows fit into images of these sizes."""
  return None if sizes is None else sizes - SSIM_WINDOW + 1


def _gaussian_blur(images):
  # As shifted sums: 3 to 5 times as fast on a CPU as dm_pix's own convolution.
  offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
  taps = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
  taps = [float(tap) for tap in taps / taps.sum()]
  for axis in (1, 2):
    size = images.shape[axis] - SSIM_WINDOW + 1
    images = sum(
      tap * jax.lax.slice_in_dim(images, i, i + size, axis=axis)
      for i, tap in enumerate(taps)
    )
  return images


def _similarities(a, b):
  """Luminance, and contrast with structure, of each window and channel."""
  parts = jnp.concatenate([a, b, a * a + b * b, a * b], axis=-1)
  mean_a, mean_b, squares, products = jnp.split(_gaussian_blur(parts), 4, -1)
  mean_squares, mean_product = mean_a**2 + mean_b**2, mean_a * mean_b
  luminance = (2 * mean_product + SSIM_C1) / (mean_squares + SSIM_C1)
  covariance, variances = products - mean_product, squares - mean_squares
  return luminance, (2 * covariance + SSIM_C2) / (variances + SSIM_C2)


def _histogram(counts):
  counts = np.asarray(counts, np.float64)
  if counts.ndim != 1 or not counts.size or not np.all(counts >= 0):
    raise ValueError('counts must be [K] with K > 0 and no negative entry')
  return counts


def _sorted_values(values):
  # Sorted, so that sums do not depend on which process held which image.
  values = np.sort(np.asarray(values, np.float64), axis=None)
  if not values.size:
    raise ValueError('no values to average: the split is empty')
  return values
