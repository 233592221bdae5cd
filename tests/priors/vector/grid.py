"""Integrals of densities in two dimensions."""

import numpy as np


def mass(prior, state, latents, cells=300, beyond=0.5):
  """The integral of a density over a grid about the latents [n, 2].

  beyond: by what share of their range the grid reaches over them.
  """
  low, high = latents.min(axis=0), latents.max(axis=0)
  margin = beyond * (high - low)
  low, width = low - margin, (high - low + 2 * margin) / cells
  axes = [low[i] + width[i] * (np.arange(cells) + 0.5) for i in range(2)]
  points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
  density = np.exp(np.asarray(prior.log_prob(state, points), np.float64))
  return density.sum() * np.prod(width)
