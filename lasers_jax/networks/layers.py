"""Layers that halve or double the side: 4x4 convolutions of stride 2.

XLA:CPU is slow at the gradients of strided convolutions, and takes another form
of them. Grouped into 2x2 blocks (space to depth), a 4x4 convolution of stride 2
is a 2x2 convolution of stride 1 over four times as many channels, with the same
weights; the transposed one is a 2x2 convolution to four times as many channels
and then depth to space. On TPUs the blocks cost twice as much as the strides,
by their compiler's count of cycles.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from lasers_jax.errors import InputError
from lasers_jax.networks.convolution import (
  DIMENSIONS,
  convolve,
  with_gradient,
)

# Variance 1/fan_in, zero biases. A third of it, PyTorch's rule, trains slower:
# 0.6 to 0.9 dB behind after 300 steps on crops of five photographs (two seeds).
kernel_init = nn.initializers.lecun_uniform()
zeros = nn.initializers.zeros
# In a transposed 4x4 convolution a pixel is the sum of only 2x2 taps.
up_kernel_init = nn.initializers.variance_scaling(4.0, 'fan_in', 'uniform')


def space_to_depth(x: jax.Array, f: int = 2) -> jax.Array:
  """Moves each fxf block to the channels: [B, fH, fW, C] -> [B, H, W, f²C].

  Channel c of pixel (i, j) of the block becomes channel (f i + j) C + c.
  """
  b, h, w, c = x.shape
  x = x.reshape(b, h // f, f, w // f, f, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h // f, w // f, f**2 * c)


def depth_to_space(x: jax.Array, f: int = 2) -> jax.Array:
  """Inverts `space_to_depth`: [B, H, W, f²C] -> [B, fH, fW, C]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, f, f, c // f**2).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, f * h, f * w, c // f**2)


def _padded(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def down_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves with stride 2 and padding 1: [B, 2H, 2W, C] -> [B, H, W, O].

  `kernel` is [4, 4, C, O]; the same numbers as a strided cross-correlation.
  """
  return with_gradient(_down_strided, _down_by_blocks)(x, kernel)


def _down_strided(x, kernel):
  return lax.conv_general_dilated(
    x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=DIMENSIONS
  )


def _down_by_blocks(x, kernel):
  c, o = kernel.shape[2:]
  # Row 2a + i of the kernel meets row i of block a.
  kernel = kernel.reshape(2, 2, 2, 2, c, o).transpose(0, 2, 1, 3, 4, 5)
  kernel = kernel.reshape(2, 2, 4 * c, o)
  return convolve(space_to_depth(_padded(x)), kernel, padding=0)


def up_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Transposes a convolution of stride 2: [B, H, W, C] -> [B, 2H, 2W, O].

  `kernel` is [4, 4, C, O], padding 1: site (m, n) adds
  x[m, n] @ kernel[i, j] to the pixel (2m + i - 1, 2n + j - 1), as in
  torch.nn.ConvTranspose2d.
  """
  return with_gradient(_up_dilated, _up_by_blocks)(x, kernel)


def _up_dilated(x, kernel):
  return lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1],
    (1, 1),
    [(2, 2), (2, 2)],
    lhs_dilation=(2, 2),
    dimension_numbers=DIMENSIONS,
  )


def _up_by_blocks(x, kernel):
  c, o = kernel.shape[2:]
  # The earlier site of a window reaches a pixel with the later kernel row.
  kernel = kernel.reshape(2, 2, 2, 2, c, o)[::-1, :, ::-1]
  kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, c, 4 * o)
  return depth_to_space(convolve(x, kernel, padding=1))[:, 1:-1, 1:-1]


class DownConv(nn.Module):
  """Convolves 4x4, stride 2, padding 1: [B, 2H, 2W, C] -> [B, H, W, O].

  O is `features`. Parameters: kernel [size, size, C, O] and bias, float32. A
  kernel of size 3 is the last rows and columns of a 4x4 one that begins with
  zeros: a convolution whose padding stands at the right and the bottom alone.
  Computes in `dtype`. Raises ValueError where a side is odd.
  """

  features: int
  dtype: jnp.dtype = jnp.float32
  size: int = 4

  @nn.compact
  def __call__(self, x):
    if x.shape[1] % 2 or x.shape[2] % 2:
      raise ValueError(f'cannot halve odd sides: {x.shape[1:3]}')
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    bias = self.param('bias', zeros, (self.features,), jnp.float32)
    if self.size == 3:
      kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
    return down_conv(x, kernel) + bias[None, None, None]


class UpConv(nn.Module):
  """Transposes a 4x4 convolution of stride 2: [B, H, W, C] -> [B, 2H, 2W, O].

  O is `features`. Parameters: kernel [4, 4, C, O] and bias, float32. Computes
  in `dtype`.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    shape = (4, 4, x.shape[-1], self.features)
    kernel = self.param('kernel', up_kernel_init, shape, jnp.float32)
    bias = self.param('bias', zeros, (self.features,), jnp.float32)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
    return up_conv(x, kernel) + bias[None, None, None]


class NearestUpConv(nn.Module):
  """Doubles by nearest neighbour, then 3x3: [B, H, W, C] -> [B, 2H, 2W, O].

  O is `features`. Parameters: kernel [3, 3, C, O] and bias, float32. Computes
  in `dtype`. Repeating a site is itself a transposed convolution, with 2x2
  ones; both together are one of 4x4, at 4/9 of the products.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    shape = (3, 3, x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    bias = self.param('bias', zeros, (self.features,), jnp.float32)
    # Cross-correlation turned into what a site sends out: flip, then spread.
    sent = jnp.pad(kernel[::-1, ::-1], ((1, 1), (1, 1), (0, 0), (0, 0)))
    sent = sent[:-1, :-1] + sent[:-1, 1:] + sent[1:, :-1] + sent[1:, 1:]
    x, sent, bias = promote_dtype(x, sent, bias, dtype=self.dtype)
    return up_conv(x, sent) + bias[None, None, None]


class BilinearUp(nn.Module):
  """Interpolates between sites: [B, H, W, C] -> [B, f*H, f*W, C].

  Beyond the edge, its sites are repeated. `mask`, bool [B, H, W], says which
  sites there are; None: all.
  """

  f: int

  @nn.compact
  def __call__(self, x, mask=None):
    b, h, w, _ = x.shape

    def resize(x):
      shape = (b, self.f * h, self.f * w, x.shape[-1])
      return jax.image.resize(x, shape, 'linear')

    if mask is None:
      return resize(x)
    weights = mask[..., None].astype(x.dtype)
    x = jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))
    return resize(x) / jnp.maximum(resize(weights), 1e-6)


def conv(features: int, size: int, dtype, use_bias=True, name=None) -> nn.Conv:
  """Returns a convolution of `size` x `size` that keeps the side."""
  return nn.Conv(
    features,
    (size, size),
    padding=size // 2,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=kernel_init,
    conv_general_dilated=_convolve,
    name=name,
  )


def _convolve(x, kernel, strides, padding, **_):
  """What flax calls in place of lax.conv_general_dilated."""
  del strides  # 1, as everything else is the default of `conv`
  return convolve(x, kernel, padding[0][0])


def check_sides(images: jax.Array, f: int) -> None:
  """Raises InputError unless the sides of `images` [B, h, w, C] divide by f."""
  if images.shape[1] % f or images.shape[2] % f:
    raise InputError(
      f'images of {images.shape[1]}x{images.shape[2]} pixels do not divide by '
      f'the down-sampling factor {f}: crop or resize them to a multiple of it.'
    )


def check_width(z: jax.Array, D: int) -> None:
  """Raises ValueError unless the last axis of `z` has D channels."""
  if z.shape[-1] != D:
    raise ValueError(f'the latent has {z.shape[-1]} channels, not D = {D}')
