"""Networks that tell real images from decoded ones, by name."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from lasers_jax.errors import InputError
from lasers_jax.networks import layers
from lasers_jax.networks.resnet import normalize


class PatchGAN(nn.Module):
  """Gives a logit for each patch (P. Isola et al., CVPR 2017), as in VQGAN.

  Convolutions of 4x4: `num_downsamples` of stride 2, two of stride 1. Unlike
  VQGAN's, it normalises groups of channels and not batches, so that an image's
  logits do not depend on the others.

  Attributes:
    channels: after the first convolution; they double up to 8 times.
    num_downsamples: of the side; 3 see patches of 70 pixels, 2 of 34, 1 of 16.
    dtype: of the computation.
  """

  channels: int = 64
  num_downsamples: int = 3
  dtype: jnp.dtype = jnp.float32

  @property
  def minimum_side(self) -> int:
    """Returns the smallest side that leaves a logit."""
    return 3 * 2**self.num_downsamples

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Judges images [B, h, w, 3] in [0, 1]: logits [B, H, W], float32.

    Raises InputError where a side is too small.
    """
    x = prepare(images, self.minimum_side, self.num_downsamples).astype(
      self.dtype
    )
    for i in range(self.num_downsamples):
      x = layers.DownConv(self.channels * min(2**i, 8), self.dtype)(x)
      x = nn.leaky_relu(normalize(x, self.dtype) if i else x, 0.2)
    features = self.channels * min(2**self.num_downsamples, 8)
    x = self._conv(features)(x)
    x = nn.leaky_relu(normalize(x, self.dtype), 0.2)
    return self._conv(1)(x)[..., 0].astype(jnp.float32)

  def _conv(self, features):
    # Of an even size and padding 1: the side shrinks by one.
    return nn.Conv(
      features,
      (4, 4),
      padding=1,
      dtype=self.dtype,
      kernel_init=layers.kernel_init,
    )


class StyleGAN(nn.Module):
  """Gives one logit an image, by a residual network that blurs and halves.

  The discriminator of StyleGAN2 (T. Karras et al., CVPR 2020) as MaskGIT's
  tokenizer has it: blur by [1, 3, 3, 1] (R. Zhang, ICML 2019), no
  normalisation. Its logit is that of the mean over sites, so that images of any
  size will do; the statistic over the batch is left out, so that an image's
  logit does not depend on the others.

  Attributes:
    channels: at full size; they double with each halving, to `most`.
    num_downsamples: of the side.
    most: channels at most.
    dtype: of the computation.
  """

  channels: int = 64
  num_downsamples: int = 3
  most: int = 512
  dtype: jnp.dtype = jnp.float32

  @property
  def minimum_side(self) -> int:
    """Returns the smallest side that num_downsamples leave an image of."""
    return 4 * 2**self.num_downsamples

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Judges images [B, h, w, 3] in [0, 1]: logits [B, 1, 1], float32.

    Raises InputError where a side is too small.
    """
    x = prepare(images, self.minimum_side, self.num_downsamples).astype(
      self.dtype
    )
    x = self._act(layers.conv(self.channels, 3, self.dtype)(x))
    for i in range(self.num_downsamples):
      features = min(self.channels * 2 ** (i + 1), self.most)
      h = self._act(layers.conv(x.shape[-1], 3, self.dtype)(x))
      h = self._act(layers.conv(features, 3, self.dtype)(blur_pool(h)))
      shortcut = layers.conv(features, 1, self.dtype, use_bias=False)
      x = (h + shortcut(blur_pool(x))) / math.sqrt(2)
    x = self._act(layers.conv(x.shape[-1], 3, self.dtype)(x))
    x = jnp.mean(x, axis=(1, 2), keepdims=True)
    x = self._act(layers.conv(x.shape[-1], 1, self.dtype)(x))
    return layers.conv(1, 1, self.dtype)(x)[..., 0].astype(jnp.float32)

  def _act(self, x):
    return nn.leaky_relu(x, 0.2)


def blur_pool(x: jax.Array) -> jax.Array:
  """Blurs by [1, 3, 3, 1] / 8 each way, and halves the sides.

  [B, 2H, 2W, C] -> [B, H, W, C]. The border is repeated beyond itself.
  """
  for axis in (1, 2):
    pad = [(0, 0)] * 4
    pad[axis] = 1, 1
    padded = jnp.pad(x, pad, mode='edge')
    n = x.shape[axis]
    parts = (
      jax.lax.slice_in_dim(padded, i, i + n - 1, 2, axis) for i in range(4)
    )
    x = sum(w / 8 * part for w, part in zip((1, 3, 3, 1), parts, strict=True))
  return x


def prepare(
  images: jax.Array, minimum_side: int, num_downsamples: int
) -> jax.Array:
  """Brings images [B, h, w, C] from [0, 1] to [-1, 1].

  Leaves out the last rows and columns that cannot be halved num_downsamples
  times. Raises InputError where a side is below `minimum_side`.
  """
  if min(images.shape[1:3]) < minimum_side:
    raise InputError(
      f'the discriminator needs images of at least {minimum_side}x'
      f'{minimum_side} pixels, not {images.shape[1]}x{images.shape[2]}: use '
      'fewer discriminator.num_downsamples'
    )
  h, w = (n - n % 2**num_downsamples for n in images.shape[1:3])
  return 2 * images[:, :h, :w] - 1


DISCRIMINATORS = {'patchgan': PatchGAN, 'stylegan': StyleGAN}
