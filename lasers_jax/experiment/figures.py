"""Draws images of a trained model."""

from typing import Any

import numpy as np
from jax.sharding import Mesh

from lasers_jax import inference
from lasers_jax.decoders import SamplingSettings
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.report import grids


def reconstruction_figure(
  model: Autoencoder,
  variables: Any,
  images: list[np.ndarray],
  mesh: Mesh,
  decoding: SamplingSettings | None = None,
) -> np.ndarray:
  """Draws images, their reconstructions, the errors, and decoded atoms.

  Args:
    images: uint8 [h, w, 3] each, of any size.

  Returns:
    uint8 [H, W, 3].
  """
  reconstructions = inference.reconstruct(
    model, variables, images, mesh, decoding
  )
  atoms = np.asarray(inference.decode_atoms(model, mesh, variables))
  return grids.reconstructions(images, reconstructions, atoms)
