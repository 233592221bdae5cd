"""Computes PSNR, SSIM and MS-SSIM: one value an image.

Images are [B, H, W, 3], RGB, floats in [0, 1] or uint8 in 0..255. `sizes`,
int32 [B, 2], has height and width of each image, which lies at the top left;
the rest is padding and does not count. Computed in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lasers_jax.core.images import to_float
from lasers_jax.networks.masks import site_means

PSNR_CAP = 100.0  # dB; reached by an RMS error of 1e-5, 1/400 of a uint8 step
SSIM_WINDOW = 11  # pixels
SSIM_SIGMA = 1.5  # pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest scale first
MS_SSIM_MINIMUM = SSIM_WINDOW * 2 ** (len(MS_SSIM_WEIGHTS) - 1)  # pixels a side


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
  scales, minimum = len(MS_SSIM_WEIGHTS), MS_SSIM_MINIMUM
  if min(a.shape[1:3]) < minimum:
    raise ValueError(
      f'MS-SSIM needs images of at least {minimum}x{minimum} pixels, '
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


def _pair(a, b):
  if a.ndim != 4 or a.shape != b.shape:
    raise ValueError(
      f'expected two batches [B, H, W, C] of one shape, '
      f'got {a.shape} and {b.shape}'
    )
  return to_float(a), to_float(b)


def _windows(sizes):
  """Returns how many windows fit into images of these sizes."""
  return None if sizes is None else sizes - SSIM_WINDOW + 1


def _losses(a, b):
  """Returns 1 - luminance and 1 - contrast of each window and channel.

  With s = 1 - loss, 1 - (1 - l) (1 - c) = l + c - l c. Differences of moments
  would leave nothing of these where images are nearly white, or nearly alike:
  (2 cov + C2) / (var a + var b + C2) is 1 - var(a - b) / (var a + var b + C2).
  """
  means, variances = _moments(jnp.concatenate([a, b, a - b], axis=-1))
  mean_a, mean_b, mean_off = jnp.split(means, 3, axis=-1)
  variance_a, variance_b, variance_off = jnp.split(variances, 3, axis=-1)
  luminance = mean_off**2 / (mean_a**2 + mean_b**2 + SSIM_C1)
  return luminance, variance_off / (variance_a + variance_b + SSIM_C2)


def _moments(images):
  """Returns the mean and the variance of each Gaussian window, by channels.

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
