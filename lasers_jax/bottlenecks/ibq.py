"""Vector quantization with a gradient for the choice of codes.

F. Shi et al., "Taming scalable visual tokenizer for autoregressive image
generation", arXiv 2412.02692 (IBQ). Two terms of the double quantization loss
have names of their own, so that the weight β goes where equation 10 puts it,
on `commitment`; the released code has it on `codebook`.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.bottlenecks.base import (
  Latent,
  LookUp,
  codebook_losses,
  relative_error,
  site_mean,
  use_stats,
)
from lasers_jax.coding import index_propagation
from lasers_jax.core.ranges import Positive


class IBQ(LookUp):
  """Codes each site with the code of the largest inner product.

  In training the decoder's gradient reaches z and all codes through
  softmax(z·Cᵀ), of which the choice is the straight-through one-hot vector.
  With q' the plain look-up and q the same with that gradient, the losses are
  `double`, mean |q - z|², `codebook`, mean |q' - sg(z)|², `commitment`, mean
  |z - sg(q')|², and `entropy`: the mean entropy of a site's softmax, less the
  entropy of their mean, in nats.

  Codes do not start from data: with a softmax of temperature 1 their size is
  part of the method, and the encoder grows towards N(0, 1).

  Attributes:
    K: codes.
    entropy_temperature: of the softmax in the entropy loss.
  """

  loss_weights: ClassVar = {
    'double': 1.0,
    'codebook': 1.0,
    'commitment': 0.25,
    'entropy': 0.05,
  }

  entropy_temperature: Positive = 0.01

  def setup(self):
    self.check()
    self.codes = self.param(
      'codes', jax.random.normal, (self.K, self.D), jnp.float32
    )

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    codes = self.encode(lax.stop_gradient(z))
    plain = self.decode(codes)
    choices = self._soft_choices(z, mask)
    soft = choices.soft.reshape(z.shape)
    quantized = index_propagation.pass_through(soft, plain) if train else plain
    exact = z.astype(jnp.float32)
    losses = {
      'double': site_mean((quantized - exact) ** 2, mask),
      **codebook_losses(exact, plain, mask),
      'entropy': choices.each - choices.together,
    }
    _, stats = use_stats(codes, self.K, mask)
    stats['relative_error'] = relative_error(exact, plain, mask)
    return Latent(quantized.astype(z.dtype), codes, losses, stats)

  def encode(self, z: Array) -> Array:
    """Codes z [..., D]: int32 [...], in [0, K)."""
    indices = index_propagation.largest_product(self._signals(z), self.codes)
    return indices.reshape(z.shape[:-1])

  def _soft_choices(
    self, z: Array, mask: Array | None
  ) -> index_propagation.SoftChoices:
    signals = self._signals(z)
    counts = jnp.ones(len(signals), bool) if mask is None else mask.reshape(-1)
    counts = counts.astype(jnp.float32)
    weights = counts / jnp.maximum(jnp.sum(counts), 1)
    return index_propagation.soft_choices(
      signals, self.codes, weights, self.entropy_temperature
    )
