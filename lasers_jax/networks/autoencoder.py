"""The whole model: encoder, bottleneck, decoder, and what refines."""

import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax import Array

from lasers_jax.bottlenecks.base import Bottleneck, Latent
from lasers_jax.networks.masks import first_sites, within


@flax.struct.dataclass
class Output:
  """One forward pass."""

  images: Array  # [B, H·f, W·f, 3], about [0, 1]; not clipped
  z: Array  # [B, H, W, D], the encoder's output
  latent: Latent
  sizes: Array | None = None  # int32 [B, 2], of the pictures; None: they fill


class Autoencoder(nn.Module):
  """Images [B, H·f, W·f, 3] in [0, 1] to codes and back.

  The networks see images centred at zero, in [-0.5, 0.5].

  Where `sizes`, int32 [B, 2], says how high and wide pictures at the top left
  of images are, each is coded and decoded as if it were alone, its edge
  repeated up to `pad_multiple`. What is beyond that is not read, and what is
  made of it means nothing.

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
  def pad_multiple(self) -> int:
    """What the sides of an image must be a multiple of."""
    sides = self.encoder.f * self.bottleneck.patch_side
    return math.lcm(sides, self.refine.f if self.refine else 1)

  def padded(self, sizes: Any) -> Any:
    """Sides of pictures, up to `pad_multiple`; numbers or arrays of them."""
    return -(-sizes // self.pad_multiple) * self.pad_multiple

  def sites(self, height: int, width: int) -> tuple[int, int]:
    """H and W of the latent of a picture."""
    f = self.encoder.f
    return self.padded(height) // f, self.padded(width) // f

  def __call__(
    self, images: Array, train: bool = False, sizes: Array | None = None
  ) -> Output:
    z, latent = self._code(images, train, sizes)
    decoded = self.decode_latent(latent.quantized, sizes)
    output = Output(decoded, z, latent, sizes)
    if self.refine and self.is_initializing():
      n = len(images)
      self.denoise(images, jnp.zeros(n, jnp.float32), output, jnp.ones(n, bool))
    return output

  def denoise(
    self, noisy: Array, t: Array, output: Output, use_condition: Array
  ) -> Array:
    """Predicts v of noisy images [B, h, w, 3], which lie in [-1, 1].

    Args:
      t: [B], in [0, 1]; see `lasers_jax.diffusion`.
      output: the forward pass that the refined images are to agree with.
      use_condition: bool [B]; where not, the network does not see `output`.
    """
    initial = 2 * output.images - 1
    with within(self._mask(output.sizes, *noisy.shape[1:3])):
      return self.refine(
        noisy, t, initial, output.latent.quantized, use_condition
      )

  def encode(self, images: Array, sizes: Array | None = None) -> Any:
    """Returns the codes of images: exactly what would be stored."""
    return self._code(images, False, sizes)[1].codes

  def decode(self, codes: Any) -> Array:
    """Returns the images of codes; `decode(encode(x))` equals evaluation."""
    return self.decoder(self.bottleneck.decode(codes)) + 0.5

  def decode_latent(
    self, quantized: Array, sizes: Array | None = None
  ) -> Array:
    """Returns the images of quantized latents [B, H, W, D]."""
    _, h, w, _ = quantized.shape
    f = self.encoder.f
    with within(self._mask(sizes, f * h, f * w)):
      return self.decoder(quantized) + 0.5

  def initialize(self, images: Array) -> None:
    """Lets the bottleneck start from a first batch of images."""
    self.bottleneck.initialize(self.encoder(images - 0.5))

  def revive(self, z: Array) -> None:
    """Lets the bottleneck replace its dead atoms."""
    self.bottleneck.revive(z)

  def _code(
    self, images: Array, train: bool, sizes: Array | None
  ) -> tuple[Array, Latent]:
    """The encoder's output, and what the bottleneck makes of it."""
    mask, f = self._mask(sizes, *images.shape[1:3]), self.encoder.f
    with within(mask):
      z = self.encoder(images - 0.5)
    mask = None if mask is None else mask[:, ::f, ::f]
    return z, self.bottleneck(z, train=train, mask=mask)

  def _mask(self, sizes: Array | None, height: int, width: int) -> Array | None:
    """Where in images the padded pictures are: bool [B, height, width]."""
    if sizes is None:
      return None
    return first_sites(self.padded(sizes), height, width)
