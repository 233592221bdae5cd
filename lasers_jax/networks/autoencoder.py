"""The whole model: encoder, bottleneck and decoder."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.bottlenecks.base import Bottleneck, Latent
from lasers_jax.bottlenecks.packing import Packing
from lasers_jax.core.padding import round_up
from lasers_jax.core.ranges import Count
from lasers_jax.errors import InputError
from lasers_jax.networks.masks import first_sites, within


@flax.struct.dataclass
class Output:
  """Holds the results of a forward pass."""

  images: Array | None  # [B, H·f, W·f, 3], the first estimate, about [0, 1]
  z: Array  # [B, H, W, D], the encoder's output
  latent: Latent


class Autoencoder(nn.Module):
  """Turns images [B, H·f, W·f, 3] in [0, 1] into codes, and codes into images.

  The encoder sees images centred at zero, in [-0.5, 0.5].

  Where `sizes`, int32 [B, 2], gives the heights and widths of pictures at the
  top left of images, each is coded and decoded as if it were alone, its edge
  repeated up to `pad_multiple`. Pixels beyond are not read, and those of the
  output mean nothing.

  Of a restoration, images are what the encoder sees of degraded ones, with
  their further channels; where these are missing, there is no damage.

  Attributes:
    bottleneck: of the signals that `Packing` makes of latents.
    decoder: a `lasers_jax.decoders.Decoder`.
    patch, standardized: see `Packing`.
    frozen: whether training leaves the encoder and the network of the decoder
      as they were. The codes of `held` bottlenecks then learn by the gradient
      of the decoder, which has no encoder to pass it to.
    channels: of the images that the encoder sees; RGB comes first.
    sees_input: whether the decoder sees these, too, besides the code.
  """

  encoder: nn.Module
  bottleneck: Bottleneck
  decoder: nn.Module
  patch: Count = 1
  standardized: bool = False
  frozen: bool = False
  channels: int = 3
  sees_input: bool = False

  def setup(self):
    self.packing = Packing(self.encoder.D, self.patch, self.standardized)

  @property
  def stride(self) -> int:
    """Returns the side, in pixels, of what one signal is of."""
    return self.encoder.f * self.patch

  @property
  def pad_multiple(self) -> int:
    """Returns the number of which the sides of an image must be multiples."""
    return math.lcm(self.stride, self.decoder.pad_multiple)

  def padded(self, sizes: Any) -> Any:
    """Rounds sides of pictures up to `pad_multiple`: numbers, or arrays."""
    return round_up(sizes, self.pad_multiple)

  def sites(self, height: int, width: int) -> tuple[int, int]:
    """Returns H and W of the latent of a picture."""
    f = self.encoder.f
    return self.padded(height) // f, self.padded(width) // f

  def coded_sites(self, height: int, width: int) -> tuple[int, int]:
    """Returns the sides of the map of signals that the bottleneck codes."""
    each = self.stride
    return self.padded(height) // each, self.padded(width) // each

  def map_bits(self, height: int, width: int) -> float | None:
    """Returns the bits of the codes of a picture; None if continuous."""
    return self.bottleneck.map_bits(*self.coded_sites(height, width))

  def check_weights_of(self, trained: 'Autoencoder') -> None:
    """Raises InputError where weights of a trained module do not fit this one.

    Only the fields that are `adjustable` in the bottleneck may differ.
    """
    for name in ('encoder', 'decoder'):
      if getattr(self, name) != getattr(trained, name):
        raise InputError(f'the {name} cannot change after training')
    if self.patch != trained.patch:
      raise InputError('bottleneck.patch cannot change after training')
    adjustable = self.bottleneck.adjustable
    for field in dataclasses.fields(self.bottleneck):
      name, new = field.name, getattr(self.bottleneck, field.name)
      if name not in adjustable and new != getattr(trained.bottleneck, name):
        raise InputError(
          f'bottleneck.{name} cannot change after training: '
          + (f'only {", ".join(adjustable)} can' if adjustable else 'none can')
        )

  def __call__(
    self, images: Array, train: bool = False, sizes: Array | None = None
  ) -> Output:
    z, latent = self._code(images, train, sizes)
    decoded = self.decode_latent(latent.quantized, sizes, images)
    output = Output(decoded, z, latent)
    if self.is_initializing():
      key, inputs = jax.random.key(0), images
      self.decoder_losses(images[..., :3], output, key, inputs=inputs)
    return output

  def decoder_losses(
    self,
    images: Array,
    output: Output,
    key: Array,
    distance: Any = None,
    inputs: Array | None = None,
  ) -> dict[str, Array]:
    """Returns the decoder's own terms of the loss of a forward pass.

    Args:
      images: [B, h, w, 3] in [0, 1], the originals of `output`.
      key, distance: as in `Decoder.losses`.
      inputs: what the encoder saw.
    """
    latent, first = output.latent.quantized, output.images
    seen = self._seen(inputs)
    return self.decoder.losses(images, latent, first, key, distance, **seen)

  def encode(self, images: Array, sizes: Array | None = None) -> Any:
    """Returns the codes of images, as they are stored."""
    return self._code(images, False, sizes)[1].codes

  def decode(self, codes: Any) -> Array:
    """Returns the first estimate of codes, that of the forward pass."""
    return self.decode_latent(self.look_up(codes))

  def look_up(self, codes: Any) -> Array:
    """Returns the latents that the decoder receives of codes: [B, H, W, D]."""
    return self.packing.undo(self.bottleneck.decode(codes))

  def pack(self, z: Array) -> Array:
    """Returns what the bottleneck codes of encoder outputs [B, H, W, D]."""
    return self.packing(z)

  def unpack(self, signals: Array) -> Array:
    """Returns the latents [B, H, W, D] of signals."""
    return self.packing.undo(signals)

  def quantize(self, z: Array, sizes: Array | None = None) -> Array:
    """Returns what the decoder receives for encoder outputs [B, H, W, D]."""
    return self._quantized(z, False, self._image_mask(z, sizes)).quantized

  def decode_latent(
    self,
    quantized: Array,
    sizes: Array | None = None,
    inputs: Array | None = None,
  ) -> Array:
    """Returns the first estimate of quantized latents [B, H, W, D].

    Args:
      inputs: what the encoder saw; needed where the decoder sees it, too.
    """
    with within(self._image_mask(quantized, sizes)):
      return self.decoder(quantized, **self._seen(inputs))

  def sample(
    self,
    quantized: Array,
    draw: Any,
    settings: Any = None,
    inputs: Array | None = None,
  ) -> Array:
    """Returns the images that the decoder draws of latents [B, H, W, D].

    Args:
      draw: a `lasers_jax.decoders.Draw`; its sizes are those of the pictures.
      settings: of the decoder's `Sampling`; None takes its defaults.
      inputs: what the encoder saw; needed where the decoder sees it, too.
    """
    if settings is None:
      settings = self.decoder.Sampling()
    mask = self._image_mask(quantized, draw.sizes)
    if draw.sizes is not None:
      draw = draw.replace(sizes=self.padded(draw.sizes))
    with within(mask):
      return self.decoder.sample(
        quantized, draw, settings, **self._seen(inputs)
      )

  def initialize(self, images: Array) -> None:
    """Lets the bottleneck start from a first batch of images."""
    images = self._with_channels(images)
    self.bottleneck.initialize(self.pack(self.encoder(images - 0.5)))

  def measure(self, images: Array) -> None:
    """Takes shift and scale of latents from a first batch of images."""
    self.packing.measure(self.encoder(self._with_channels(images) - 0.5))

  def code(self, images: Array) -> Output:
    """Returns a forward pass in training that ends before the decoder."""
    return Output(None, *self._code(images, True, None))

  def latent_error(self, output: Output) -> Array:
    """Returns the mean square error of standardized latents: [B]."""
    z, quantized = output.z, output.latent.quantized
    error = self.packing.standard(z) - self.packing.standard(quantized)
    return jnp.mean(error**2, axis=(1, 2, 3))

  def revive(self, z: Array) -> None:
    """Lets the bottleneck replace its dead atoms."""
    self.bottleneck.revive(self.pack(z))

  def _seen(self, inputs: Array | None) -> dict[str, Array]:
    """What the decoder sees besides the code."""
    if not self.sees_input:
      return {}
    if inputs is None:
      raise InputError(
        'the decoder of this model sees the degraded image, and here is the '
        "code alone: train with degradation.protocol='code'"
      )
    return {'inputs': self._with_channels(inputs)}

  def _with_channels(self, images: Array) -> Array:
    """Images with zeros for the channels that they lack."""
    missing = self.channels - images.shape[-1]
    if not missing:
      return images
    return jnp.pad(images, (*[(0, 0)] * 3, (0, missing)))

  def _code(
    self, images: Array, train: bool, sizes: Array | None
  ) -> tuple[Array, Latent]:
    """The encoder's output, and what the bottleneck makes of it."""
    mask = self._mask(sizes, *images.shape[1:3])
    images = self._with_channels(images)
    with within(mask):
      z = self.encoder(images - 0.5)
    return z, self._quantized(z, train, mask)

  def _quantized(self, z: Array, train: bool, mask: Array | None) -> Latent:
    """What the bottleneck makes of z; the mask is of pixels."""
    f = self.encoder.f
    mask = self.packing.whole(None if mask is None else mask[:, ::f, ::f])
    latent = self.bottleneck(self.pack(z), train=train, mask=mask)
    quantized = latent.quantized
    if train and self.frozen and self.bottleneck.held:
      decoded = self.bottleneck.decode(latent.codes)
      quantized += decoded - jax.lax.stop_gradient(decoded)  # zero, but a path
    return latent.replace(quantized=self.unpack(quantized))

  def _image_mask(self, quantized: Array, sizes: Array | None) -> Array | None:
    """The `_mask` of the images of latents [B, H, W, D]."""
    _, h, w, _ = quantized.shape
    return self._mask(sizes, self.encoder.f * h, self.encoder.f * w)

  def _mask(self, sizes: Array | None, height: int, width: int) -> Array | None:
    """Where in images the padded pictures are: bool [B, height, width]."""
    if sizes is None:
      return None
    return first_sites(self.padded(sizes), height, width)


def network_shapes(model: Autoencoder) -> dict[str, Any]:
  """Returns the shapes of the parameters of both networks of an Autoencoder.

  Those are the encoder and the network of the decoder: what a tokenizer has.
  """

  def draw(images: Array) -> dict[str, Any]:
    key, found = jax.random.key(0), {}
    z, found['encoder'] = model.encoder.init_with_output(key, images)
    found['decoder'] = model.decoder.network.init(key, z)
    return {name: x.get('params', {}) for name, x in found.items()}

  f = model.encoder.f
  image = jax.ShapeDtypeStruct((1, f, f, model.channels), jnp.float32)
  return jax.eval_shape(draw, image)
