"""The loss of a diffusion decoder."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.diffusion.schedule import Schedule


def draw_times(key: Array, n: int, uniform_fraction: float = 1.0) -> Array:
  """Draws the times of training: float32 [n], in [0, 1].

  Args:
    uniform_fraction: the fraction of uniform times; the others are the sigmoid
      of N(0, 1), most of which is in the middle. Without uniform times the ends
      are hardly seen, which shifts colours (FlowMo).
  """
  which, uniform, normal = jax.random.split(key, 3)
  middle = jax.nn.sigmoid(jax.random.normal(normal, (n,), jnp.float32))
  even, chance = (
    jax.random.uniform(key, (n,), jnp.float32) for key in (uniform, which)
  )
  return jnp.where(chance < uniform_fraction, even, middle)


def diffusion_loss(
  predict: Callable[[Array, Array], Array],
  schedule: Schedule,
  images: Array,
  times: Array,
  noise: Array,
) -> tuple[Array, Array]:
  """Compares the predicted v with the true one, at one time for each image.

  The mean of (v - v̂)² is that of w_t (x - x̂)² with w_t = 1 / σ_t², where x̂ is
  the image that v̂ stands for: so this is l of SWYCC (arXiv 2409.02529,
  section 3), whose w_t the paper does not give.

  Args:
    predict: (x_t [B, h, w, 3], t [B]) -> v̂ [B, h, w, 3].
    images: [B, h, w, 3], in [-1, 1].
    times: [B], in [0, 1].
    noise: [B, h, w, 3], standard normal.

  Returns:
    The loss of each image [B], and the estimates x̂ [B, h, w, 3]: float32, as
    is what is given to `predict`, whatever the types of the arguments.
  """
  images, times, noise = (x.astype(jnp.float32) for x in (images, times, noise))
  t = times[:, None, None, None]
  mixed = schedule.mix(images, noise, t)
  v = schedule.velocity(images, noise, t)
  predicted = predict(mixed, times).astype(jnp.float32)
  error = jnp.mean((predicted - v) ** 2, axis=(1, 2, 3))
  return error, schedule.image_of(mixed, predicted, t)
