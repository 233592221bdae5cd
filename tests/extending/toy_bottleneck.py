"""A bottleneck of your own: the sign of each channel, at one bit each."""

import jax.numpy as jnp

from lasers_jax.bottlenecks import BOTTLENECKS, Bottleneck, Latent
from lasers_jax.bottlenecks.base import site_mean
from lasers_jax.bottlenecks.gradients import straight_through


class Sign(Bottleneck):
  loss_weights = {'commitment': 0.25}  # of the losses that __call__ returns
  scale: float = 1.0  # a field, and so the flag --config.bottleneck.scale

  def __call__(self, z, train, mask=None):
    codes = self.encode(z)
    quantized = self.decode(codes).astype(z.dtype)
    losses = {'commitment': site_mean((z - quantized) ** 2, mask)}
    quantized = straight_through(z, quantized)  # for the encoder's gradient
    return Latent(quantized, codes, losses, stats={})

  def encode(self, z):  # what is stored: int32 [..., D]
    return (z > 0).astype(jnp.int32)

  def decode(self, codes):  # float32 [..., D]
    return self.scale * (2.0 * codes - 1)

  bits_per_site = property(lambda self: self.D)

  @classmethod
  def at_rate(cls, asked):  # fields that spend `asked.bits` on a site
    if asked.bits != asked.d:
      raise ValueError(f'{asked.bits} bits a site are not D = {asked.d}')
    return {}

  def transfer(self, coder, sites, codes=None, name=''):  # order in a file
    return coder.planes(name, codes, sites, [2] * self.D).astype('int32')


BOTTLENECKS['sign'] = Sign
