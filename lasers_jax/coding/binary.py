"""Entropies of codes of independent bits.

L. Yu et al., "Language model beats diffusion: tokenizer is key to visual
generation", ICLR 2024; A. Jansen et al., arXiv 1911.05894 (section 3.2);
Y. Zhao, Y. Xiong and P. Krähenbühl, "Image and video tokenization with binary
spherical quantization", arXiv 2406.07548.
"""

import jax
import jax.numpy as jnp
from jax import Array


def bit_logits(x: Array, scale: float, temperature: float) -> Array:
  """Returns the log odds of each bit when codes are drawn near a point.

  A code c in {-s, s}^d has the probability softmax(2 x·c / τ) over all 2^d
  codes, which is that of exp(-|x - c|² / τ). Since x·c is a sum over bits, it
  is a product over bits, and the log odds of bit j are 4 s x_j / τ.

  Args:
    x: [N, d].
    scale: s, the magnitude of a code in each dimension.
    temperature: τ.
  """
  return 4 * scale / temperature * x


@jax.jit
def entropies(logits: Array, weights: Array) -> tuple[Array, Array]:
  """Returns the mean entropy of the codes of sites, and that of their mean.

  The first is exact: given the site, bits are independent. The second is the
  sum of the entropies of the single bits. Over sites bits may depend on each
  other, and then the entropy of the mean over all 2^d codes is less than this
  sum: the sum is an upper bound, and counts equal bits twice.

  Args:
    logits: float32 [N, d], the log odds of each bit.
    weights: float32 [N], of the sites; 0 leaves one out.

  Returns:
    Two scalars in nats, in [0, d ln 2].
  """
  fraction = weights / jnp.maximum(jnp.sum(weights), 1e-30)
  each = jnp.sum(_entropy_of_bit(logits), axis=1)
  ones = jnp.sum(fraction[:, None] * jax.nn.sigmoid(logits), axis=0)
  zeros = jnp.sum(fraction[:, None] * jax.nn.sigmoid(-logits), axis=0)
  return jnp.sum(fraction * each), jnp.sum(_plogp(ones) + _plogp(zeros))


def _entropy_of_bit(logits: Array) -> Array:
  # All terms are positive, so that nothing cancels for large logits.
  size = jnp.abs(logits)
  return jnp.log1p(jnp.exp(-size)) + size * jax.nn.sigmoid(-size)


def _plogp(p: Array) -> Array:
  """Returns -p log p, with a finite gradient at 0."""
  return -p * jnp.log(jnp.maximum(p, 1e-30))
