"""Draws images of a trained model."""

from typing import Any

import numpy as np
from jax.sharding import Mesh

from lasers_jax import inference
from lasers_jax.decoders import SamplingSettings
from lasers_jax.degradations import Degradation
from lasers_jax.evaluation import degraded
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.report import grids


def reconstruction_figure(
  model: Autoencoder,
  variables: Any,
  images: list[np.ndarray],
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
  degradation: Degradation | None = None,
) -> np.ndarray:
  """Draws images, their reconstructions, the errors, and decoded atoms.

  Of a restoration also the degraded images.

  Args:
    images: uint8 [h, w, 3] each, of any size, the first of their split.

  Returns:
    uint8 [H, W, 3].
  """
  inputs, between = images, {}
  if degradation:
    inputs = degraded.damaged(degradation, images, range(len(images)))
    between['input'] = [x[..., :3] for x in inputs]
  reconstructions = inference.reconstruct(
    model, variables, inputs, mesh, decoding
  )
  atoms = np.asarray(inference.decode_atoms(model, mesh, variables))
  return grids.reconstructions(images, reconstructions, atoms, between)
