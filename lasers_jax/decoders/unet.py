"""The U-Net that refines a decoded image: the decoder D_refine of SWYCC.

Birodkar et al., "Sample what you can't compress", arXiv 2409.02529: a U-Net on
the noisy image beside the image that the first decoder made. The paper does not
give channels, the embedding of time, and how the network receives it: these are
assumed. Here the embedding scales and shifts the output of group normalisation,
as in P. Dhariwal and A. Nichol, "Diffusion models beat GANs on image
synthesis", NeurIPS 2021, section 3. It also weights both images in a skip past
the network at full size, which is best where nothing else is known (T. Karras
et al., NeurIPS 2022, section 5, have a formula for it).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.diffusion import waves
from lasers_jax.errors import InputError
from lasers_jax.networks import layers
from lasers_jax.networks.resnet import Attention, normalize


class Block(nn.Module):
  """Adds a residual that depends on time: [B, H, W, C] -> [.., features].

  `time` [B, T] scales and shifts after the second normalisation.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, time):
    h = nn.swish(normalize(x, self.dtype))
    h = layers.conv(self.features, 3, self.dtype)(h)
    change = nn.Dense(
      2 * self.features, dtype=self.dtype, kernel_init=nn.initializers.zeros
    )(time)
    scale, shift = jnp.split(change[:, None, None], 2, axis=-1)
    h = nn.swish(normalize(h, self.dtype) * (1 + scale) + shift)
    h = layers.conv(self.features, 3, self.dtype)(h)
    if x.shape[-1] != self.features:
      x = layers.conv(self.features, 1, self.dtype, name='shortcut')(x)
    return x + h


def unet_factor(multipliers: tuple[int, ...], num_downsamples: int) -> int:
  """Returns the number of which the sides of a U-Net's images are multiples."""
  return 2 ** (num_downsamples + len(multipliers) - 1)


class UNet(nn.Module):
  """Predicts v from a noisy image and its condition.

  Its fields are described in `decoders.diffusion.Diffusion`.
  """

  channels: int
  multipliers: tuple[int, ...]
  num_downsamples: int
  blocks: int
  attention: tuple[int, ...]
  latent: bool
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    noisy: jax.Array,
    t: jax.Array,
    initial: jax.Array,
    quantized: jax.Array,
    use_condition: jax.Array,
    inputs: jax.Array | None = None,
  ) -> jax.Array:
    """Predicts v.

    Args:
      noisy: x_t [B, h, w, 3].
      t: [B], in [0, 1].
      initial: the image of the first decoder [B, h, w, 3], about [-1, 1].
      quantized: [B, H, W, D]; read where `latent` is set.
      use_condition: bool [B], whose condition may be seen.
      inputs: a degraded image [B, h, w, c] in [0, 1], part of the condition.

    Returns:
      [B, h, w, 3] float32.

    Raises:
      InputError: a side does not divide by `unet_factor`, or there is no such
        level.
    """
    factor = unet_factor(self.multipliers, self.num_downsamples)
    layers.check_sides(noisy, factor)
    levels = len(self.multipliers)
    if not all(level < levels for level in self.attention):
      raise InputError(
        f'decoder.attention is {tuple(self.attention)}: its levels must be '
        f'less than {levels}, as many as there are multipliers'
      )
    x = self._inputs(noisy, initial, quantized, use_condition, inputs)
    for _ in range(self.num_downsamples):
      x = layers.space_to_depth(x)
    time = self._time(t)
    x = layers.conv(self.channels, 3, self.dtype)(x)
    kept = [x]
    for i, multiplier in enumerate(self.multipliers):
      if i:
        x = layers.DownConv(x.shape[-1], self.dtype)(x)
        kept.append(x)
      for _ in range(self.blocks):
        x = self._block(x, time, i, multiplier)
        kept.append(x)
    x = Block(x.shape[-1], self.dtype)(x, time)
    for i, multiplier in reversed(list(enumerate(self.multipliers))):
      for _ in range(self.blocks + 1):
        x = jnp.concatenate([x, kept.pop()], axis=-1)
        x = self._block(x, time, i, multiplier)
      if i:
        x = layers.NearestUpConv(x.shape[-1], self.dtype)(x)
    x = nn.swish(normalize(x, self.dtype)).astype(jnp.float32)
    planes, zeros = 3 * 4**self.num_downsamples, nn.initializers.zeros
    x = nn.Conv(planes, (3, 3), kernel_init=zeros, name='to_v')(x)
    for _ in range(self.num_downsamples):
      x = layers.depth_to_space(x)
    return x + self._skip(noisy, initial, time, use_condition)

  def _skip(self, noisy, initial, time, use_condition):
    """Adds up both images, each weighted as the time asks, at full size."""
    here = use_condition[:, None].astype(jnp.float32)
    told = jnp.concatenate([time.astype(jnp.float32), here], axis=1)
    weights = nn.Dense(2, kernel_init=nn.initializers.zeros, name='skip')(told)
    of_noisy, of_initial = weights[:, :1], weights[:, 1:] * here
    return sum(
      weight[:, :, None, None] * image
      for weight, image in ((of_noisy, noisy), (of_initial, initial))
    )

  def _inputs(self, noisy, initial, quantized, use_condition, inputs):
    """The noisy image, the condition, and a plane that says if it is there."""
    here = use_condition[:, None, None, None].astype(noisy.dtype)
    planes = [initial * here]
    if self.latent:
      shape = *noisy.shape[:3], quantized.shape[-1]
      planes.append(jax.image.resize(quantized, shape, 'nearest') * here)
    if inputs is not None:
      planes.append((2 * inputs - 1) * here)
    planes.append(jnp.broadcast_to(here, (*noisy.shape[:3], 1)))
    return jnp.concatenate([noisy, *planes], axis=-1).astype(self.dtype)

  def _time(self, t):
    """Waves of the time, and two layers: [B, 4 channels]."""
    h = nn.Dense(4 * self.channels, dtype=self.dtype)(waves(t))
    return nn.swish(nn.Dense(4 * self.channels, dtype=self.dtype)(nn.swish(h)))

  def _block(self, x, time, level, multiplier):
    x = Block(self.channels * multiplier, self.dtype)(x, time)
    return Attention(self.dtype)(x) if level in self.attention else x
