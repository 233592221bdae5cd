"""The whole model: encoder, bottleneck, decoder."""

from typing import Any

import flax.linen as nn
import flax.struct
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
  """

  encoder: nn.Module
  bottleneck: Bottleneck
  decoder: nn.Module

  def __call__(self, images: Array, train: bool = False) -> Output:
    z = self.encoder(images - 0.5)
    latent = self.bottleneck(z, train=train)
    return Output(self.decoder(latent.quantized) + 0.5, z, latent)

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
