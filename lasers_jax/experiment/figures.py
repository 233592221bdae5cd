"""Figures of a trained model's images."""

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
    images: uint8 [h, w, 3] each, of any size from the factor up.

  Returns:
    uint8 [H, W, 3].
  """
  copies = inference.reconstruct(model, variables, images, mesh, decoding)
  atoms = np.asarray(inference.decode_atoms(model, mesh, variables))
  return grids.reconstructions(images, copies, atoms)
