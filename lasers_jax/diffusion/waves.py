"""What networks are told of a time."""

import math

import jax.numpy as jnp
from jax import Array

_FREQUENCIES = 32
_LONGEST = 1000.0  # what times are multiplied by at most


def waves(t: Array) -> Array:
  """Returns sines and cosines of times [B] in [0, 1]: float32 [B, 64].

  Their frequencies rise from 1 to 1,000, as those of positions do in A. Vaswani
  et al., NeurIPS 2017, section 3.5.
  """
  longest = math.log10(_LONGEST)
  rates = jnp.logspace(0, longest, _FREQUENCIES, dtype=jnp.float32)
  angles = t[:, None] * rates[None]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
