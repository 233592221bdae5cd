"""The whole model: encoder, bottleneck, decoder, and what refines."""

import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax import Array

from lasers_jax.bottlenecks.base import Bottleneck, Latent


@flax.struct.dataclass
class Output:
  """One forward pass."""

  images: Array  # [B, H·f, W·f, 3], about [0, 1]; not clipped
  z: Array  # [B, H, W, D], the encoder's output
  latent: Latent


class Autoencoder(nn.Module):
  """Images [B, H·f, W·f, 3] in [0, 1] to codes and back.

  The networks see images centred at zero, in [-0.5, 0.5].

  Attributes:
    refine: a U-Net that samples what the code does not hold, or None. With it,
      `decoder` is what SWYCC calls D_initial, and the images of an `Output` are
      what it is to refine.
  """

  encoder: nn.Module
  bottleneck: Bottleneck
  decoder: nn.Module
  refine: nn.Module | None = None

  @property
  def multiple(self) -> int:
    """What the sides of an image must be a multiple of."""
    sides = self.encoder.f * self.bottleneck.patch_side
    return math.lcm(sides, self.refine.f if self.refine else 1)

  def __call__(self, images: Array, train: bool = False) -> Output:
    z = self.encoder(images - 0.5)
    latent = self.bottleneck(z, train=train)
    output = Output(self.decoder(latent.quantized) + 0.5, z, latent)
    if self.refine and self.is_initializing():
      n = len(images)
      self.denoise(images, jnp.zeros(n), output, jnp.ones(n, bool))
    return output

  def denoise(
    self, noisy: Array, t: Array, output: Output, known: Array
  ) -> Array:
    """Predicts v of noisy images [B, h, w, 3], which lie in [-1, 1].

    Args:
      t: [B], in [0, 1]; see `lasers_jax.diffusion`.
      output: the forward pass that the refined images are to agree with.
      known: bool [B]; where not, the network does not see `output`.
    """
    initial = 2 * output.images - 1
    return self.refine(noisy, t, initial, output.latent.quantized, known)

  def encode(self, images: Array) -> Any:
    """Returns the codes of images: exactly what would be stored."""
    return self.bottleneck.encode(self.encoder(images - 0.5))

  def decode(self, codes: Any) -> Array:
    """Returns the images of codes; `decode(encode(x))` equals evaluation."""
    return self.decoder(self.bottleneck.decode(codes)) + 0.5

  def decode_latent(self, quantized: Array) -> Array:
    """Returns the images of quantized latents [B, H, W, D]."""
    return self.decoder(quantized) + 0.5

  def initialize(self, images: Array) -> None:
    """Lets the bottleneck start from a first batch of images."""
    self.bottleneck.initialize(self.encoder(images - 0.5))

  def revive(self, z: Array) -> None:
    """Lets the bottleneck replace its dead atoms."""
    self.bottleneck.revive(z)
