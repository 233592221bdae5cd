"""Measures statistics of latents and codes over images."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lasers_jax.core.images import to_float
from lasers_jax.core.padding import sizes_of
from lasers_jax.core.sharding import put_batch, replicated
from lasers_jax.metrics import code_usage
from lasers_jax.networks.autoencoder import Autoencoder


def measure_latents(
  model: Autoencoder,
  variables: Any,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
) -> dict[str, Any]:
  """Measures the latents that the decoder receives, and the use of codes.

  Args:
    batches: of `data.evaluation_batches`.

  Returns:
    `mean` and `deviation` of each channel of the latent, lists of D numbers;
    the counts `images` and `sites`; and for a discrete code `usage` (distinct
    codes / K) and `perplexity` over the same images.
  """
  images, sites = 0, 0
  total = squares = np.zeros(model.encoder.D)
  counts = np.zeros(model.bottleneck.symbols, np.int64)
  for batch in batches:
    rows = {'image': batch['image']}
    sizes = sizes_of(batch['image'], batch['height'], batch['width'])
    if sizes is not None:
      rows['sizes'] = sizes
    latents, codes = jax.device_get(
      _code(model, mesh, variables, put_batch(rows, mesh))
    )
    for i in np.flatnonzero(batch['mask']):
      size = int(batch['height'][i]), int(batch['width'][i])
      h, w = model.sites(*size)
      z = latents[i, :h, :w].reshape(h * w, -1).astype(np.float64)
      images, sites = images + 1, sites + h * w
      total, squares = total + z.sum(axis=0), squares + (z**2).sum(axis=0)
      if len(counts):
        rows, columns = model.bottleneck.grid(*model.coded_sites(*size))
        used = codes[i, :rows, :columns].ravel()
        counts += np.bincount(used, minlength=len(counts))
  mean = total / sites
  found = {
    'mean': mean.tolist(),
    'deviation': np.sqrt(np.maximum(squares / sites - mean**2, 0)).tolist(),
    'images': images,
    'sites': sites,
  }
  if len(counts):
    found['usage'] = code_usage.usage(counts)
    found['perplexity'] = code_usage.perplexity(counts)
  return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _code(model, mesh, variables, batch) -> tuple[Array, Any]:
  images = to_float(batch['image'])
  latent = model.apply(variables, images, sizes=batch.get('sizes')).latent
  codes = None
  if model.bottleneck.symbols:
    codes = model.bottleneck.indices(latent.codes)
  found = latent.quantized, codes
  return jax.lax.with_sharding_constraint(found, replicated(mesh))
