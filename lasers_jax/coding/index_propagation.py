"""A gradient for the choice among many codes, by the softmax of their logits.

F. Shi et al., "Taming scalable visual tokenizer for autoregressive image
generation", arXiv 2412.02692 (IBQ). The logits of all sites and all codes,
[N, K], never exist at once: codes are taken in blocks, in both passes. A block
has all sites, so that a mesh that splits these splits each block: chunks of
sites would be smaller than the devices are many.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.distances import best_code

# Logits of a block: 128 MiB, and a few arrays of that size live at a time; but
# blocks of fewer codes are not worth their loop.
_ENTRIES = 2**25
_FEWEST = 4096
# In place of the logit of a code that is none: its probability is 0.
_NONE = -1e30


@jax.jit
def largest_product(signals: Array, codebook: Array) -> Array:
  """Finds the code with the largest inner product with each signal.

  Args:
    signals: [N, D]; one with an entry that is not finite counts as zero.
    codebook: [K, D]; a code with such an entry is never chosen. Computed in
      float32 about the mean of the codes.

  Returns:
    int32 [N], in [0, K); the lowest index wins a tie.
  """
  return best_code(signals, codebook, by_distance=False)


def pass_through(soft: Array, codebook: Array, indices: Array) -> Array:
  """Looks up the chosen codes, with the gradient of a soft choice.

  This is the straight-through one-hot vector times the codebook: the value, and
  the gradient to the codebook, are those of the look-up; the gradient to the
  probabilities p is that of `soft`.

  Args:
    soft: [N, D], p @ sg(codebook).
    codebook: [K, D].
    indices: int32 [N], the codes that were chosen.
  """
  # The usual soft + sg(hard - soft) rounds; this adds zero.
  return codebook[indices] + (soft - lax.stop_gradient(soft))


def propagate(
  signals: Array, codebook: Array, indices: Array, block: int | None = None
) -> Array:
  """Looks up codes with the gradient of softmax(z·Cᵀ) (IBQ).

  Every code has a gradient, not only the chosen ones.

  Args:
    signals: float32 [N, D]; codebook: float32 [K, D].
    indices: int32 [N], the codes that were chosen.
    block: codes at once, at most; None takes what fits. It changes memory and
      time, not the result.

  Returns:
    float32 [N, D], equal to codebook[indices].
  """
  blocks = _split(signals, codebook, block)
  total = _log_sums(signals, blocks, 1.0)

  def soften(some: _Codes) -> Array:
    p = jnp.exp(_logits(signals, some, 1.0) - total[:, None])
    return p @ lax.stop_gradient(some.codes)

  soft, _ = _over_blocks(lambda some: (soften(some), None), blocks)
  return pass_through(soft, codebook, indices)


def entropies(
  signals: Array,
  codebook: Array,
  weights: Array,
  temperature: float,
  block: int | None = None,
) -> tuple[Array, Array]:
  """Returns the entropies of single choices of codes, and of their mean.

  Both are of p = softmax(z·Cᵀ / temperature). If the first is small, each site
  is sure of its code; if the second is large, the sites together use all codes.

  Args:
    signals: float32 [N, D]; codebook: float32 [K, D].
    weights: float32 [N], of sum 1: how much each site counts.
    temperature: positive.
    block: as of `propagate`.

  Returns:
    The mean of the entropies of the sites, and the entropy of the mean of
    their p: scalars in [0, log K].
  """
  blocks = _split(signals, codebook, block)
  total = _log_sums(signals, blocks, temperature)

  def sums(some: _Codes) -> tuple[Array, Array]:
    log_p = _logits(signals, some, temperature) - total[:, None]
    p = jnp.exp(log_p)
    return -jnp.sum(p * log_p, axis=1), weights @ p

  each, mean = _over_blocks(sums, blocks)
  return weights @ each, -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-30)))


class _Codes(NamedTuple):
  """Holds blocks of codes, or one of them.

  Attributes:
    codes: float32 [blocks, block, D] or [block, D].
    real: bool [blocks, block] or [block]; False where a block is filled up.
  """

  codes: Array
  real: Array


def _split(signals: Array, codebook: Array, block: int | None) -> _Codes:
  k, d = codebook.shape
  block = min(block or max(_ENTRIES // len(signals), _FEWEST), k)
  count = -(-k // block)
  codes = jnp.pad(codebook, ((0, count * block - k), (0, 0)))
  real = jnp.arange(count * block) < k
  return _Codes(codes.reshape(count, block, d), real.reshape(count, block))


def _logits(signals: Array, some: _Codes, temperature: float) -> Array:
  """Returns the logits of a block: float32 [N, block]."""
  return jnp.where(some.real, signals @ some.codes.T / temperature, _NONE)


def _log_sums(signals: Array, blocks: _Codes, temperature: float) -> Array:
  """Returns log Σ exp(logits) over all codes: float32 [N]."""

  def add(total: Array, some: _Codes) -> tuple[Array, None]:
    logits = _logits(signals, some, temperature)
    return jnp.logaddexp(total, jax.nn.logsumexp(logits, axis=1)), None

  start = jnp.full(len(signals), _NONE, jnp.float32)
  return lax.scan(jax.checkpoint(add), start, blocks)[0]


def _over_blocks(
  function: Callable[[_Codes], tuple[Array, Array | None]], blocks: _Codes
) -> tuple[Array, Array | None]:
  """Adds up a function's first result over blocks, and lists its second."""
  # What is inside is computed again for its gradient, not kept.
  function = jax.checkpoint(function)
  first = jax.eval_shape(function, jax.tree.map(lambda x: x[0], blocks))[0]

  def add(total: Array, some: _Codes) -> tuple[Array, Array | None]:
    one, other = function(some)
    return total + one, other

  return lax.scan(add, jnp.zeros(first.shape, first.dtype), blocks)
