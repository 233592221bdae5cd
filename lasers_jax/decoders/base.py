"""The contract of decoders."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from lasers_jax.decoders.fusion import Fusion

# (images, images) [B, h, w, 3] in [0, 1] -> their mean perceptual distance.
Distance = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
  """Holds the settings of a decoder in training: here none."""


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
  """Holds the settings by which a decoder draws an image: here none."""


@flax.struct.dataclass
class Draw:
  """Names samples of images: all that their random numbers depend on.

  Attributes:
    indices: int32 [B], the numbers of the images in the split.
    number: int32, that of the sample, of several of an image.
    sizes: int32 [B, 2], of images at the top left of an array; None: they fill.
  """

  indices: Array
  number: Array | int = 0
  sizes: Array | None = None

  def normal(self, shape: tuple[int, ...], seed: int) -> Array:
    """Draws standard normal noise for images [h, w, c] of a shape.

    Returns:
      [B, h, w, c]; the noise of an image does not depend on the others, and
      inside `sizes` it is the same as for images of these sizes.
    """
    key = jax.random.fold_in(jax.random.key(seed), self.number)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(self.indices)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    if self.sizes is None:
      return noise
    # The n-th number that a key gives does not depend on how many are drawn.
    y, x, c = jnp.indices(shape)[:, None]
    widths = self.sizes[:, 1, None, None, None]
    places = (y * widths + x) * shape[2] + c
    flat = noise.reshape(len(noise), -1)
    moved = jnp.take_along_axis(
      flat, places.reshape(flat.shape), axis=1, mode='clip'
    )
    return moved.reshape(noise.shape)


class Decoder(nn.Module):
  """Decodes quantized latents [B, H, W, D] to images [B, h, w, 3].

  This is the contract; without changes it is one pass of a network. The fields
  of a subclass, besides these two, are the keys of a config's section
  `decoder`. Parameters are those of `__call__` and `losses`, and lie beside the
  network's own: `network` adds no level to their paths. A subclass with a
  `setup` calls `super().setup()` first.

  Attributes:
    GIVEN: fields that are built from other sections.
    network: latents to images centred at zero, of the section `network`.
    training: of the section `decoder.training`, a `Training`.
    Training, Sampling: dataclasses of the sections `decoder.training` and
      `decoder.sampling`. If `Sampling` has a field `steps`, a report shows
      quality and time as functions of it.
    is_stochastic: whether `sample` draws one image of many; results then also
      hold the quality of the first estimate, and a report shows samples.
    perceptual_terms: terms of `losses` that require a distance; a config that
      gives them no weight does without.
  """

  GIVEN: ClassVar[tuple[str, ...]] = ('network', 'training')
  Training: ClassVar[type] = TrainingSettings
  Sampling: ClassVar[type] = SamplingSettings
  is_stochastic: ClassVar[bool] = False
  perceptual_terms: ClassVar[tuple[str, ...]] = ()

  network: nn.Module
  training: TrainingSettings = TrainingSettings()

  def setup(self):
    nn.share_scope(self, self.network)
    self.fusion = Fusion()  # without parameters where nothing calls it

  @property
  def has_losses(self) -> bool:
    """Returns whether there are terms of the loss besides the pixel loss."""
    return type(self).losses is not Decoder.losses

  @property
  def f(self) -> int:
    """Returns the up-sampling factor: image side / H."""
    return self.network.f

  @property
  def pad_multiple(self) -> int:
    """Returns the number of which the sides of an image must be multiples."""
    return self.f

  def __call__(self, quantized: Array, inputs: Array | None = None) -> Array:
    """Returns the first estimate: [B, h, w, 3], about [0, 1], not clipped.

    Args:
      inputs: [B, h, w, 3 + extra], given where a restoration's decoder sees the
        degraded image; what is known of it is pasted.
    """
    first = self.network(quantized) + 0.5
    return first if inputs is None else self.fusion(first, inputs)

  def losses(
    self,
    images: Array,
    quantized: Array,
    first: Array,
    key: Array,
    distance: Distance | None = None,
    inputs: Array | None = None,
  ) -> dict[str, Array]:
    """Returns the terms of the loss besides those of the first estimate.

    Args:
      images: [B, h, w, 3] in [0, 1], the originals.
      first: of `__call__` for `quantized`.
      key: of everything random.
      distance: given where `perceptual_terms` have a weight.
      inputs: as in `__call__`.

    Returns:
      Scalars, unweighted; each needs a weight `loss.weights.NAME`.
    """
    del images, quantized, first, key, distance, inputs
    return {}

  def sample(
    self,
    quantized: Array,
    draw: Draw,
    settings: SamplingSettings,
    inputs: Array | None = None,
  ) -> Array:
    """Returns the images of an evaluation: [B, h, w, 3], about [0, 1].

    Args:
      draw: names the samples; everything random depends on it.
      settings: a `Sampling`.
      inputs: as in `__call__`.
    """
    del draw, settings
    seen = {} if inputs is None else {'inputs': inputs}
    return self(quantized, **seen)

  def check(self, settings: SamplingSettings) -> None:
    """Raises InputError if this decoder cannot sample by these settings."""
    del settings

  def describe(self, settings: SamplingSettings) -> dict[str, Any]:
    """Returns the entries of results about decoding: `decoder`, settings."""
    del settings
    return {'decoder': 'one pass'}

  def last_layer(self, params: Mapping[str, Any]) -> Array:
    """Returns the kernel that makes the first estimate.

    Args:
      params: of this decoder, or their gradients.
    """
    return params['to_image']['kernel']
