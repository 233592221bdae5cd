"""A prior from outside the package: a training latent, and noise around it.

import toy_prior  # before the program or the call that names it
generate.sample_all([lj.load('runs/mnist/vae')], ['jitter:scale=0.2'])
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.core.ranges import Positive
from lasers_jax.priors.vector import PRIORS, Prior, State
from lasers_jax.priors.vector.base import check_latents


@dataclasses.dataclass(frozen=True)
class Jitter(Prior):
  """Draws one of the latents that it was fitted on, and adds noise to it.

  Attributes:
    scale: standard deviation of the noise, in deviations of each coordinate.
  """

  scale: Positive = 0.1  # its range; the words jitter:scale=0.2 set it

  def fit(self, latents, seed: int = 0) -> State:
    """Keeps the latents [n, d]; the state is a dictionary of arrays."""
    latents = check_latents(latents, 2)
    return {'latents': latents, 'deviation': latents.std(axis=0)}

  def sample(self, state: State, key: Array, n: int) -> Array:
    """Draws float32 [n, d]: a pure function of the state and the key."""
    which, noise = jax.random.split(key)
    latents = jnp.asarray(state['latents'])
    chosen = latents[jax.random.randint(which, (n,), 0, len(latents))]
    return chosen + self.scale * state['deviation'][None] * jax.random.normal(
      noise, chosen.shape
    )


PRIORS['jitter'] = Jitter
