"""Measures of quality and of code usage: one value per image, then a mean.

Images are [B, H, W, 3], RGB, floats in [0, 1] or uint8 in 0..255; with `sizes`,
int32 [B, 2], the images are so high and wide, at the top left, and the rest is
padding that does not matter. What is done on the device is float32; histograms
and means are float64 on the host.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from scipy.special import ndtri, stdtrit

from lasers_jax.networks.masks import site_means

PSNR_CAP = 100.0  # dB; reached by an RMS error of 1e-5, 1/400 of a uint8 step
SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
LEAST_VALUES = 10  # of which there is an interval
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest scale first
MS_SSIM_LEAST = SSIM_WINDOW * 2 ** (len(MS_SSIM_WEIGHTS) - 1)  # pixels a side


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
  luminance, contrast = _losses(a, b)
  lost = luminance + contrast - luminance * contrast
  return 1 - site_means(lost, _windows(sizes)).mean(axis=1)


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
  scales, least = len(MS_SSIM_WEIGHTS), MS_SSIM_LEAST
  if min(a.shape[1:3]) < least:
    raise ValueError(
      f'MS-SSIM needs images of at least {least}x{least} pixels, '
      f'got {a.shape[1]}x{a.shape[2]}'
    )
  product = 1.0
  for scale, weight in enumerate(MS_SSIM_WEIGHTS):
    luminance, lost = _losses(a, b)
    if scale == scales - 1:  # where alone luminance counts
      lost += luminance - luminance * lost
    product *= jnp.maximum(1 - site_means(lost, _windows(sizes)), 0) ** weight
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
  """Returns (low, high), the 95 % bootstrap interval of the mean, or None.

  values: one number per image, in any order (the order does not matter);
  float64; memory for one draw at a time. A function of the values and the seed
  alone. Percentiles, which lie too near to the mean of n values, are moved away
  by (n / (n - 1))^(1/2) t / z, with the 97.5 % points of Student's t with n - 1
  degrees of freedom and of the normal distribution (after Hesterberg, The
  American Statistician 2015). None where there are fewer than 10 values, which
  say too little of how they are distributed, or one is NaN or infinite. Raises
  ValueError where there is none at all.
  """
  values = _sorted_values(values)
  size, mean = len(values), values.mean()
  if size < LEAST_VALUES or not np.isfinite(values).all():
    return None
  rng = np.random.default_rng(seed)
  means = [values[rng.integers(size, size=size)].mean() for _ in range(draws)]
  wider = np.sqrt(size / (size - 1)) * stdtrit(size - 1, 0.975) / ndtri(0.975)
  low, high = mean + wider * (np.percentile(means, (2.5, 97.5)) - mean)
  return float(low), float(high)


def summarize(values):
  """Returns the mean of per-image values, its 95 % interval and their count.

  The keys are 'mean', 'low', 'high' (float) and 'count' (int); low and high are
  None where there is no interval. Raises ValueError where there is no value.
  """
  low, high = bootstrap_interval(values) or (None, None)
  values = _sorted_values(values)
  return {
    'mean': float(values.mean()),
    'low': low,
    'high': high,
    'count': len(values),
  }


def say_interval(summary, say='{:.2f}'.format):
  """Returns 'LOW to HIGH' of what `summarize` gave; '' without an interval."""
  if summary['low'] is None:
    return ''
  return f'{say(summary["low"])} to {say(summary["high"])}'


def say_mean(summary):
  """Returns 'MEAN (LOW to HIGH)', to 2 decimals; without interval MEAN."""
  interval = say_interval(summary)
  return f'{summary["mean"]:.2f}' + (f' ({interval})' if interval else '')


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


def _losses(a, b):
  """What SSIM loses in each window and channel: 1 - luminance, 1 - contrast.

  With s = 1 - loss, 1 - (1 - l) (1 - c) = l + c - l c. Differences of moments
  would leave nothing of these where pictures are nearly white, or nearly alike:
  (2 cov + C2) / (var a + var b + C2) is 1 - var(a - b) / (var a + var b + C2).
  """
  means, variances = _moments(jnp.concatenate([a, b, a - b], axis=-1))
  mean_a, mean_b, mean_off = jnp.split(means, 3, axis=-1)
  variance_a, variance_b, variance_off = jnp.split(variances, 3, axis=-1)
  luminance = mean_off**2 / (mean_a**2 + mean_b**2 + SSIM_C1)
  return luminance, variance_off / (variance_a + variance_b + SSIM_C2)


def _moments(images):
  """The mean and the variance of each Gaussian window, by channels.

  Both about the mean of the window: first of its rows, then of what they give,
  as variance is that within rows and that of their means. Shifted sums are 3 to
  5 times as fast on a CPU as a convolution.
  """
  offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
  taps = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
  taps = [float(tap) for tap in taps / taps.sum()]
  means, variances = images, jnp.zeros_like(images)
  for axis in (2, 1):
    size = images.shape[axis] - SSIM_WINDOW + 1

    def shifted(x, axis=axis, size=size):
      return [
        (tap, jax.lax.slice_in_dim(x, i, i + size, axis=axis))
        for i, tap in enumerate(taps)
      ]

    parts = shifted(means)
    means = sum(tap * x for tap, x in parts)
    between = sum(tap * (x - means) ** 2 for tap, x in parts)
    variances = between + sum(tap * x for tap, x in shifted(variances))
  return means, variances


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
