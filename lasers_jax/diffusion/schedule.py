"""How an image becomes noise: x_t = α x + σ ε, from t = 0 to t = 1.

A network predicts v = α ε - σ x, from which both the image and the noise
follow (T. Salimans and J. Ho, "Progressive distillation for fast sampling of
diffusion models", ICLR 2022, section 4 and appendix D).
"""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Mixes images and noise: α = cos(πt/2), σ = sin(πt/2), so α² + σ² = 1.

  Attributes:
    signal_scale: γ of epsilon-VAE (arXiv 2410.04081): images are multiplied by
      it before noise comes in, and the sum is scaled back to α² + σ² = 1. It
      shifts log α²/σ² by 2 log γ: less than 1 is more noise.
  """

  signal_scale: float = 1.0

  def __post_init__(self):
    if self.signal_scale <= 0:
      raise ValueError(f'signal_scale must be positive: {self.signal_scale}')

  def __call__(self, t: Array) -> tuple[Array, Array]:
    """Returns α and σ at times t in [0, 1], float32 of t's shape."""
    angle = jnp.asarray(t, jnp.float32) * (math.pi / 2)
    # At t = 1 the cosine of a rounded π/2 is below zero.
    image = self.signal_scale * jnp.maximum(jnp.cos(angle), 0)
    noise = jnp.sin(angle)
    length = jnp.sqrt(image**2 + noise**2)
    return image / length, noise / length


def mix(image: Array, noise: Array, alpha: Array, sigma: Array) -> Array:
  """Returns x_t; α and σ broadcast against images."""
  return alpha * image + sigma * noise


def velocity(image: Array, noise: Array, alpha: Array, sigma: Array) -> Array:
  """Returns v, which a network learns to predict."""
  return alpha * noise - sigma * image


def image_of(mixed: Array, v: Array, alpha: Array, sigma: Array) -> Array:
  """Returns the image in x_t, given v."""
  return alpha * mixed - sigma * v
