"""Joins what a code says with the degraded image that a decoder sees."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from lasers_jax.networks import layers

CHANNELS = 32
BLOCKS = 2


class Fusion(nn.Module):
  """Corrects a first estimate by the degraded image, at full size.

  The correction is zero at first. Known pixels are pasted.
  """

  @nn.compact
  def __call__(self, first: Array, inputs: Array) -> Array:
    """Returns the estimate from both: [B, h, w, 3].

    Args:
      first: [B, h, w, 3], about [0, 1].
      inputs: [B, h, w, 3 + extra], as the encoder sees them.
    """
    both = jnp.concatenate([first, inputs], axis=-1) - 0.5
    x = layers.conv(CHANNELS, 3, jnp.float32)(both)
    for _ in range(BLOCKS):
      h = layers.conv(CHANNELS, 3, jnp.float32)(nn.swish(x))
      x = x + layers.conv(CHANNELS, 3, jnp.float32)(nn.swish(h))
    x = jnp.concatenate([both, nn.swish(x)], axis=-1)
    zeros = nn.initializers.zeros
    change = nn.Conv(3, (3, 3), kernel_init=zeros, name='to_change')(x)
    return paste(first + change, inputs)


def paste(images: Array, inputs: Array) -> Array:
  """Returns images with the known pixels of inputs.

  Args:
    images: [B, h, w, 3].
    inputs: [B, h, w, 3], of which nothing is known, or [B, h, w, 4] with a mask
      that is 0 where they are the truth.
  """
  if inputs.shape[-1] == 3:
    return images
  return jnp.where(inputs[..., 3:] == 0, inputs[..., :3], images)
