"""What is done to latents before every bottleneck, and undone after it."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lasers_jax.bottlenecks.base import like_sites
from lasers_jax.bottlenecks.patches import from_patches, to_patches
from lasers_jax.core.ranges import Count

_LEAST = 1e-6  # deviation of a channel that a scale is the inverse of


class Packing(nn.Module):
  """Turns latents [..., H, W, D] into signals [..., H/p, W/p, p·p·D].

  Where latents are standardized, a signal is made of (z - shift)·scale, each
  channel by its own numbers of the collection `codebook`. These stay as they
  were measured, or read with the weights of a tokenizer.

  Attributes:
    D: width of a latent vector.
    patch: side p of the squares of latents that are signals.
    standardized: whether there are a shift and a scale.
  """

  D: Count
  patch: Count = 1
  standardized: bool = False

  def setup(self):
    if self.standardized:
      row, home = (self.D,), 'codebook'
      self.shift = self.variable(home, 'shift', jnp.zeros, row, jnp.float32)
      self.scale = self.variable(home, 'scale', jnp.ones, row, jnp.float32)

  def __call__(self, z: Array) -> Array:
    return to_patches(self.standard(z), self.patch)

  def undo(self, signals: Array) -> Array:
    """Returns the latents [..., H, W, D] of signals."""
    z = from_patches(signals, self.patch)
    if not self.standardized:
      return z
    scale, shift = (like_sites(x.value, z) for x in (self.scale, self.shift))
    return (z / scale + shift).astype(z.dtype)

  def standard(self, z: Array) -> Array:
    """Returns (z - shift)·scale, or z where nothing is standardized."""
    if not self.standardized:
      return z
    scale, shift = (like_sites(x.value, z) for x in (self.scale, self.shift))
    return ((z - shift) * scale).astype(z.dtype)

  def whole(self, mask: Array | None) -> Array | None:
    """Says which signals are of sites that all count: [..., H/p, W/p]."""
    if mask is None or self.patch == 1:
      return mask
    return jnp.all(to_patches(mask[..., None], self.patch), axis=-1)

  def measure(self, z: Array) -> None:
    """Takes the shift and the scale from latents of a first batch."""
    rows = z.reshape(-1, self.D).astype(jnp.float32)
    self.shift.value = jnp.mean(rows, axis=0)
    deviation = jnp.std(rows, axis=0)
    self.scale.value = 1 / jnp.maximum(deviation, _LEAST)
