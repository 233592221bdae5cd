"""Priors with small settings, and latents that are few."""

import numpy as np

from lasers_jax.priors.vector import PRIORS, Prior

SMALL = {
  'product': {'block': 2, 'k': 4},
  'gmm': {'components': 2, 'iterations': 20},
  'flow': {'width': 8, 'depth': 1, 'steps': 20, 'sampling_steps': 2},
  'histogram': {'width': 3},
}
LATENTS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)


def small(name) -> Prior:
  return PRIORS[name](**SMALL.get(name, {}))
