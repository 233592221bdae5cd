"""Running averages."""

from typing import Any

import jax.numpy as jnp
import optax
from jax import Array


def follow(average: Any, values: Any, decay: float, step: Array) -> Any:
  """Returns an exponential moving average that follows quickly at first.

  The decay is at most (1 + step) / (10 + step), so that the start is forgotten.

  Args:
    average, values: pytrees of one structure.
    step: int32, of the values, counted from 0.
  """
  t = step.astype(jnp.float32)
  rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
  return optax.incremental_update(values, average, rate)
