"""How an event is drawn from logits, in one order.

Guidance, legality, temperature, top-k, top-p. Guidance comes first: after a
filter it would subtract infinities.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.core.ranges import Positive, Range, Whole
from lasers_jax.errors import unknown
from lasers_jax.priors.maps.base import DrawingSettings

RAMPS = ('constant', 'linear', 'power-cosine')


@dataclasses.dataclass(frozen=True)
class TokenDrawing(DrawingSettings):
  """Settings by which events are drawn.

  Attributes:
    ramp: how guidance rises with the fraction t of a map that is drawn:
      'constant'; 'linear', 1 + (g - 1) t; 'power-cosine', 1 + (g - 1)
      (1 - cos(π t^a)) / 2 (Q. Yu et al., "Randomized autoregressive visual
      generation", arXiv 2411.00776).
    ramp_power: a of 'power-cosine'.
    temperature: divides the logits; 1 draws from the model itself.
    top_k: keeps the k likeliest values of an event; 0 keeps all.
    top_p: keeps the likeliest values that together have this probability
      (A. Holtzman et al., arXiv 1904.09751); 1 keeps all.
  """

  ramp: str = 'constant'
  ramp_power: Positive = 2.75
  temperature: Positive = 1.0
  top_k: Whole = 0
  top_p: Annotated[float, Range(0, 1, '(]')] = 1.0

  def __post_init__(self):
    super().__post_init__()
    if self.ramp not in RAMPS:
      raise unknown('ramp', self.ramp, RAMPS)

  @property
  def guided(self) -> bool:
    """Whether events are predicted without the class, too."""
    return self.guidance != 1

  def guidance_at(self, t: Array) -> Array:
    """Returns the guidance where the fraction t of a map is drawn."""
    if self.ramp == 'constant':
      return jnp.full_like(t, self.guidance)
    if self.ramp == 'power-cosine':
      t = (1 - jnp.cos(jnp.pi * t**self.ramp_power)) / 2
    return 1 + (self.guidance - 1) * t


def guide(logits: Array, guidance: Array) -> Array:
  """Returns u + g (c - u) [B, ..., V].

  Args:
    logits: [2B, ..., V]: c, predicted with the class, then u, without.
    guidance: g, a scalar.
  """
  c, u = jnp.split(logits, 2)
  return u + guidance * (c - u)


def allow(logits: Array, legal: Array | None) -> Array:
  """Returns logits that are -inf where `legal` is False; None allows all."""
  return logits if legal is None else jnp.where(legal, logits, -jnp.inf)


def sharpen(logits: Array, drawing: TokenDrawing) -> Array:
  """Returns logits [..., V] by temperature, top-k and top-p, in this order.

  Values as likely as the last one that is kept are kept with it.
  """
  if drawing.temperature != 1:
    logits = logits / drawing.temperature
  if 0 < drawing.top_k < logits.shape[-1]:
    kept, _ = jax.lax.top_k(logits, drawing.top_k)
    logits = _at_least(logits, kept[..., -1:])
  if drawing.top_p < 1:
    falling = -jnp.sort(-logits, axis=-1)
    p = jax.nn.softmax(falling, axis=-1)
    kept = jnp.cumsum(p, axis=-1) - p < drawing.top_p
    least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
    logits = _at_least(logits, least)
  return logits


def _at_least(logits, least):
  return jnp.where(logits >= least, logits, -jnp.inf)


def pick(keys: Array, logits: Array) -> Array:
  """Returns a value for each row of logits [B, ..., V]: int32 [B, ...].

  Args:
    keys: [B]; the values of image i depend on keys[i] alone.
  """
  return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def fold(keys: Array, number: Array | int) -> Array:
  """Returns keys [B] for what has a number, of keys [B]."""
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
