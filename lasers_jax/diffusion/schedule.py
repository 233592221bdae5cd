"""How an image becomes noise: x_t = α x + σ ε, from t = 0 to t = 1.

A network predicts a v from which, with x_t, the image follows.
"""

import abc
import dataclasses
import math

import jax.numpy as jnp
from jax import Array


@dataclasses.dataclass(frozen=True)
class Interpolant(abc.ABC):
  """Mixes images and noise by α and σ, which are 1 and 0 at t = 0.

  Here images are arrays of any shape, such as maps of latents, and times t in
  [0, 1] broadcast against them.
  """

  @abc.abstractmethod
  def __call__(self, t: Array) -> tuple[Array, Array]:
    """Returns α and σ at times t in [0, 1], float32 of t's shape."""

  def mix(self, image: Array, noise: Array, t: Array) -> Array:
    """Returns x_t."""
    alpha, sigma = self(t)
    return alpha * image + sigma * noise

  @abc.abstractmethod
  def velocity(self, image: Array, noise: Array, t: Array) -> Array:
    """Returns v, which a network learns to predict."""

  @abc.abstractmethod
  def image_of(self, mixed: Array, v: Array, t: Array) -> Array:
    """Returns the image in x_t, given v."""


@dataclasses.dataclass(frozen=True)
class Schedule(Interpolant):
  """Mixes by α = cos(πt/2) and σ = sin(πt/2), so α² + σ² = 1.

  v = α ε - σ x (T. Salimans and J. Ho, "Progressive distillation for fast
  sampling of diffusion models", ICLR 2022, section 4 and appendix D).

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
    angle = jnp.asarray(t, jnp.float32) * (math.pi / 2)
    # At t = 1 the cosine of a rounded π/2 is below zero.
    image = self.signal_scale * jnp.maximum(jnp.cos(angle), 0)
    noise = jnp.sin(angle)
    length = jnp.sqrt(image**2 + noise**2)
    return image / length, noise / length

  def velocity(self, image: Array, noise: Array, t: Array) -> Array:
    alpha, sigma = self(t)
    return alpha * noise - sigma * image

  def image_of(self, mixed: Array, v: Array, t: Array) -> Array:
    alpha, sigma = self(t)
    return alpha * mixed - sigma * v


@dataclasses.dataclass(frozen=True)
class Straight(Interpolant):
  """Mixes by α = 1 - σ and σ = t, on a straight line from image to noise.

  v = ε - x, the velocity along it (X. Liu et al., "Flow straight and fast",
  arXiv 2209.03003).

  Attributes:
    shift: s of σ = s t / (1 + (s - 1) t) (P. Esser et al., arXiv 2403.03206,
      equation 23), which shifts log α/σ by -log s: more than 1 is more noise,
      for images of many numbers.
  """

  shift: float = 1.0

  def __post_init__(self):
    if self.shift <= 0:
      raise ValueError(f'shift must be positive: {self.shift}')

  def __call__(self, t: Array) -> tuple[Array, Array]:
    t = jnp.asarray(t, jnp.float32)
    length = 1 + (self.shift - 1) * t
    return (1 - t) / length, self.shift * t / length

  def velocity(self, image: Array, noise: Array, t: Array) -> Array:
    del t
    return noise - image

  def image_of(self, mixed: Array, v: Array, t: Array) -> Array:
    _, sigma = self(t)
    return mixed - sigma * v
