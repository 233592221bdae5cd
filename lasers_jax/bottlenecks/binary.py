"""Binary codes: look-up free quantization, and binary spherical quantization.

L. Yu et al., "Language model beats diffusion: tokenizer is key to visual
generation", ICLR 2024 (LFQ). Y. Zhao, Y. Xiong and P. Krähenbühl, "Image and
video tokenization with binary spherical quantization", arXiv 2406.07548 (BSQ).

Unlike released code, entropies are factorised over single bits (an option of
the BSQ code; LFQ code sums over all codes, or over groups of bits); the
entropy of LFQ is that of all sites, not of a part of them; the entropy is not
multiplied by the temperature; and commitment is a mean over bits, not a sum.
"""

import math
from typing import Annotated, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.bottlenecks.base import site_mean
from lasers_jax.bottlenecks.fsq import Scalars, check_number
from lasers_jax.bottlenecks.rates import Asked, Fields
from lasers_jax.coding import binary
from lasers_jax.core.ranges import Amount, Positive, Range


class Binary(Scalars):
  """Codes each site by the signs of a few scalars: a code in {-s, s}^bits.

  Losses: `commitment`, mean |x - sg(q)|² of the scalars x and their code q;
  `entropy`, E[H(p)] - gamma H(E[p]) in nats, where p is the distribution over
  codes near a site, softmax(2 x·c / temperature). The first term, of single
  sites, is exact. The second is approximated by the sum of the entropies of
  single bits, which is an upper bound: it makes each bit even, but does not
  prevent two bits from being equal. The loss may be negative.

  Attributes:
    bits: width of the code.
    temperature: of the distribution over codes.
    gamma: weight of the entropy of the mean, which favours diverse codes.
  """

  bits: Annotated[int, Range(1, 32)] = 9
  temperature: Positive = 1.0
  gamma: Amount = 1.0

  @classmethod
  def at_rate(cls, asked: Asked) -> Fields:
    check_number(asked.bits)
    return {'bits': asked.bits}

  @property
  def levels(self) -> tuple[int, ...]:
    return (2,) * self.bits

  @property
  def scale(self) -> float:
    """Returns the magnitude s of a code in each dimension."""
    return 1.0

  def _digits(self, placed: Array) -> Array:
    return (placed > 0).astype(jnp.int32)

  def _values(self, digits: Array) -> Array:
    return self.scale * (2.0 * digits.astype(jnp.float32) - 1)

  def _losses(
    self, placed: Array, values: Array, mask: Array | None
  ) -> dict[str, Array]:
    counted = jnp.ones(len(placed), bool) if mask is None else mask
    weights = counted.astype(jnp.float32)
    logits = binary.bit_logits(placed, self.scale, self.temperature)
    of_each, of_mean = binary.entropies(logits, weights)
    error = (placed - lax.stop_gradient(values)) ** 2
    return {
      'entropy': of_each - self.gamma * of_mean,
      'commitment': site_mean(error, mask),
    }


class LFQ(Binary):
  """Codes each site by the signs of scalars, ±1 (LFQ, section 3.1).

  Losses and attributes are those of `Binary`.
  """

  loss_weights: ClassVar = {'entropy': 0.1, 'commitment': 0.25}

  temperature: Positive = 0.01

  def _place(self, scalars: Array) -> Array:
    return scalars


class BSQ(Binary):
  """Codes each site by the signs of a unit vector, ±1/√bits (BSQ).

  The scalars are u = x / |x|, and q = sign(u) / √bits has length 1 as well.
  Losses and attributes are those of `Binary`, where x is u.
  """

  loss_weights: ClassVar = {'entropy': 0.1, 'commitment': 0.0}

  @property
  def scale(self) -> float:
    return 1 / math.sqrt(self.bits)

  def _place(self, scalars: Array) -> Array:
    squares = jnp.sum(scalars**2, axis=1, keepdims=True)
    return scalars * lax.rsqrt(squares + 1e-12)
