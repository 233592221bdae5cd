"""Several draws of the same restorations, by hand."""

import numpy as np

from lasers_jax.degradations import DEGRADATIONS, Degraded
from lasers_jax.evaluation.draws import summarize_draws


def test_draws_their_mean_and_the_best():
  images = np.full((2, 4, 4, 3), 100, np.uint8)
  # Errors of +10 and -10, which cancel, and of +20.
  drawn = np.stack([images + 10, images - 10, images + 20])
  settings = DEGRADATIONS['superres'](scale=2)
  found = summarize_draws(
    settings, images, drawn, Degraded(images, images, images[..., :1])
  )
  level = 20 * np.log10(255 / 10)
  assert (found['images'], found['draws']) == (2, 3)
  np.testing.assert_allclose(found['psnr_of_best'], level, rtol=1e-5)
  of_two = level - 20 * np.log10(2)
  np.testing.assert_allclose(found['psnr'], (2 * level + of_two) / 3, rtol=1e-5)
  np.testing.assert_allclose(
    found['psnr_of_mean'], 20 * np.log10(255 * 3 / 20), rtol=1e-4
  )
  np.testing.assert_allclose(found['spread'], np.std([10, -10, 20]), rtol=1e-4)
  # Flat images made small are as far from each other.
  np.testing.assert_allclose(found['consistency'], found['psnr'], atol=0.01)
  assert 'lpips_between' not in found
