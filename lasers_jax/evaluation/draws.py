"""Measures several samples of the same restorations."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lasers_jax import inference
from lasers_jax.core.images import to_float
from lasers_jax.decoders import SamplingSettings
from lasers_jax.degradations import Degradation, Degraded, in_evaluation
from lasers_jax.metrics import similarity
from lasers_jax.metrics.registry import Metrics
from lasers_jax.networks.autoencoder import Autoencoder

IMAGES = 16  # the first of the split, of one size
DRAWS = 8  # samples of each


def measure_draws(
  model: Autoencoder,
  variables: Any,
  mesh: Mesh,
  decoding: SamplingSettings,
  metrics: Metrics,
  degradation: Degradation,
  images: np.ndarray,
) -> dict[str, Any]:
  """Draws each restoration several times, and compares the draws.

  Args:
    images: uint8 [n, h, w, 3], the first of their split that are of one size.

  Returns:
    As `summarize_draws`; `lpips` where `metrics` has one.
  """
  found = [in_evaluation(degradation, x, i) for i, x in enumerate(images)]
  inputs = [x.inputs for x in found]
  drawn = np.stack(
    [
      inference.reconstruct(
        model, variables, inputs, mesh, decoding, number=number
      )
      for number in range(DRAWS)
    ]
  )
  lpips = next((x for k, x in metrics.of_images.items() if 'lpips' in k), None)
  if lpips and lpips.module.minimum_side > min(images.shape[1:3]):
    lpips = None
  degraded = Degraded(*(np.stack(x) for x in zip(*found, strict=True)))
  return summarize_draws(degradation, images, drawn, degraded, lpips)


def summarize_draws(
  degradation: Degradation,
  images: np.ndarray,
  drawn: np.ndarray,
  degraded: Degraded,
  lpips: Any = None,
) -> dict[str, Any]:
  """Returns the quality of draws, of their mean and of the best of them.

  Args:
    images: uint8 [n, h, w, 3], the originals.
    drawn: uint8 [draws, n, h, w, 3].
    degraded: of the images.
    lpips: a `PerImage`, for the distance between draws.

  Returns:
    `images` and `draws`, how many there are; means of `psnr` of a draw, of
    `psnr_of_mean` of the draws, and of `psnr_of_best`, chosen by the original;
    `spread`, the deviation of a value over draws, of 255; `consistency` of a
    draw where the degradation has it; `lpips_between` a draw and the next.
  """
  exact, truth = to_float(jnp.asarray(drawn)), to_float(jnp.asarray(images))
  quality = jnp.stack([similarity.psnr(truth, x) for x in exact])
  results: dict[str, Any] = {
    'images': len(images),
    'draws': len(drawn),
    'psnr': jnp.mean(quality),
    'psnr_of_mean': jnp.mean(similarity.psnr(truth, jnp.mean(exact, axis=0))),
    'psnr_of_best': jnp.mean(jnp.max(quality, axis=0)),
    'spread': 255 * jnp.mean(jnp.std(exact, axis=0)),
  }
  measure = degradation.measures().get('consistency')
  if measure:
    known = jnp.asarray(degraded.known)
    values = [measure(truth, x, known, None) for x in exact]
    results['consistency'] = jnp.mean(jnp.stack(values))
  if lpips:
    variables = {'params': lpips.params}
    pairs = itertools.pairwise(exact)
    apart = [lpips.module.apply(variables, *pair) for pair in pairs]
    results['lpips_between'] = jnp.mean(jnp.stack(apart))
  return {
    name: x if isinstance(x, int) else float(x)
    for name, x in jax.device_get(results).items()
  }
