"""A decoder of one's own: the network's images, their colours corrected.

Import this file before a config is read, and name the decoder there:

  config['decoder'] = {'name': 'colour', 'window': 8}
  config['loss']['weights']['colour'] = 1.0  # of the term of `losses`
"""

import flax.linen as nn
import jax.numpy as jnp

from lasers_jax.core.ranges import Count
from lasers_jax.decoders import DECODERS, Decoder


class ColourCorrection(Decoder):
  """Mixes the colours of each pixel as it learns to; at first changes nothing.

  `window`, pixels a side of squares whose mean colours are compared, is the key
  `decoder.window` of a config: a whole number, and at least 1.
  """

  window: Count = 4

  @nn.compact
  def __call__(self, quantized):
    images = super().__call__(quantized)
    return nn.Dense(3, kernel_init=lambda *_: jnp.eye(3), name='mix')(images)

  def losses(self, images, quantized, first, key, distance=None):
    window = (self.window, self.window)
    error = nn.avg_pool(images - first, window, window)
    return {'colour': jnp.mean(error**2)}

  def last_layer(self, params):  # for the weight of a discriminator
    return params['mix']['kernel']


DECODERS['colour'] = ColourCorrection
