"""Latents that are not coded: the plain and the variational autoencoder.

D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014; with
the clamp and the small weight of R. Rombach et al., "High-resolution image
synthesis with latent diffusion models", CVPR 2022. Unlike there, the mean
starts as z itself and the deviation at e⁻³, so that a run begins as a plain
autoencoder, and the loss is a mean over sites.
"""

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.bottlenecks.base import (
  Bottleneck,
  Latent,
  relative_error,
  site_mean,
)
from lasers_jax.coding.search import block_size, in_blocks

LOWEST, HIGHEST = -30.0, 20.0  # log variances


class Identity(Bottleneck):
  """Passes z on as it is: what any code is to be compared with.

  There are no losses.
  """

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    stats = {'relative_error': relative_error(z, z, mask)}
    return Latent(z, self.encode(z), {}, stats)

  def encode(self, z: Array) -> Array:
    """Returns z as float32 [..., D]."""
    return z.astype(jnp.float32)

  def decode(self, codes: Array) -> Array:
    return codes


class KL(Bottleneck):
  """Draws each site from N(mean, variance), both linear in z (KL-VAE).

  Training decodes a draw, evaluation the mean; the code is the mean in both.

  Losses: `kl`, the divergence of N(mean, variance) from N(0, I) in nats, a sum
  over D and a mean over sites.
  """

  def setup(self):
    identity = jnp.eye(self.D)
    self.mean = self.param('mean', _dense, identity, 0.0)
    self.log_variance = self.param('log_variance', _dense, 0 * identity, -6.0)

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    codes = self.encode(z)
    log_variance = jnp.clip(_map(z, self.log_variance), LOWEST, HIGHEST)
    twice = codes**2 + jnp.exp(log_variance) - 1 - log_variance
    losses = {'kl': site_mean(jnp.sum(twice, axis=-1) / 2, mask)}
    quantized = codes
    if train:
      noise = jax.random.normal(self.make_rng('bottleneck'), codes.shape)
      quantized = codes + jnp.exp(log_variance / 2) * noise
    stats = {'relative_error': relative_error(z, quantized, mask)}
    return Latent(quantized.astype(z.dtype), codes, losses, stats)

  def encode(self, z: Array) -> Array:
    """Returns the means float32 [..., D]."""
    return _map(z, self.mean)

  def decode(self, codes: Array) -> Array:
    return codes


def _dense(key: Array, kernel: Array, bias: float) -> dict[str, Array]:
  del key  # nothing is drawn
  return {'kernel': kernel, 'bias': jnp.full(kernel.shape[0], bias)}


def _map(z: Array, weights: dict[str, Array]) -> Array:
  """Applies a dense map to each site: float32 [..., D]."""
  signals = z.reshape(-1, z.shape[-1]).astype(jnp.float32)
  kernel, bias = weights['kernel'], weights['bias']
  rows = in_blocks(
    lambda x: x @ kernel + bias[None], signals, block_size(kernel.shape[0])
  )
  return rows.reshape(z.shape)
