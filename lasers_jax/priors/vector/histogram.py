"""Sites drawn independently: the baseline of any code."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lasers_jax.core.ranges import Count
from lasers_jax.errors import InputError
from lasers_jax.priors.vector.base import Prior, State, check_latents


@dataclasses.dataclass(frozen=True)
class SiteHistogram(Prior):
  """Draws every site from all sites of all latents, each on its own.

  Of a discrete code this is the histogram over codes: a code is drawn as often
  as it was used, at any site, and nothing of an image but its average colour
  and texture is left. A prior that is no better has learned nothing of how
  sites depend on each other. If an image is one site, it draws training latents
  again.

  Fitting takes O(n d), drawing O(d) a row.

  Attributes:
    width: D, the numbers of a site; latents are d = H·W·D.
    most: sites that are kept, drawn by the seed.
  """

  width: Count = 16
  most: Count = 2**20

  def fit(self, latents, seed: int = 0) -> State:
    """Keeps sites of latents [n, d].

    Raises:
      InputError: as `check_latents`, or d is no multiple of the width.
    """
    latents = check_latents(latents)
    d = latents.shape[1]
    if d % self.width:
      raise InputError(
        f'latents of {d} numbers are not made of sites of {self.width}: width '
        'must be the D of the model'
      )
    sites = latents.reshape(-1, self.width)
    if len(sites) > self.most:
      chosen = np.random.default_rng(seed).choice(
        len(sites), self.most, replace=False
      )
      sites = sites[chosen]
    return {'sites': sites, 'places': np.arange(d // self.width)}

  def check(self, state: State) -> None:
    super().check(state)
    if state['sites'].shape[1:] != (self.width,):
      raise ValueError('sites of another width')

  def sample(self, state: State, key: Array, n: int) -> Array:
    sites = jnp.asarray(state['sites'])
    shape = n, len(state['places'])
    picked = jax.random.randint(key, shape, 0, len(sites))
    return sites[picked].reshape(n, -1)
