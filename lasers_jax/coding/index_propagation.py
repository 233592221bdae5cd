"""A gradient for the choice among many codes, by the softmax of their logits.

F. Shi et al., "Taming scalable visual tokenizer for autoregressive image
generation", arXiv 2412.02692 (IBQ). The logits of all sites and all codes,
[N, K], never exist at once: sites are taken in chunks, in both passes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.distances import best_code
from lasers_jax.coding.search import map_blocks, split_blocks

# Logits of a chunk: 128 MiB, and a few arrays of that size live at a time.
_ENTRIES = 2**25


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
  signals: Array, codebook: Array, indices: Array, chunk: int | None = None
) -> Array:
  """Looks up codes with the gradient of softmax(z·Cᵀ) (IBQ).

  Every code has a gradient, not only the chosen ones.

  Args:
    signals: float32 [N, D]; codebook: float32 [K, D].
    indices: int32 [N], the codes that were chosen.
    chunk: sites at once, at most; None takes what fits. It changes memory and
      time, not the result.

  Returns:
    float32 [N, D], equal to codebook[indices].
  """

  def soften(block: Array) -> Array:
    p = jax.nn.softmax(block @ codebook.T)
    return p @ lax.stop_gradient(codebook)

  # What is inside is computed again for its gradient, not kept.
  soften = jax.checkpoint(soften)
  soft = map_blocks(soften, signals, _chunk(signals, codebook, chunk))
  return pass_through(soft, codebook, indices)


def entropies(
  signals: Array,
  codebook: Array,
  weights: Array,
  temperature: float,
  chunk: int | None = None,
) -> tuple[Array, Array]:
  """Returns the entropies of single choices of codes, and of their mean.

  Both are of p = softmax(z·Cᵀ / temperature). If the first is small, each site
  is sure of its code; if the second is large, the sites together use all codes.

  Args:
    signals: float32 [N, D]; codebook: float32 [K, D].
    weights: float32 [N], of sum 1: how much each site counts.
    temperature: positive.
    chunk: as of `propagate`.

  Returns:
    The mean of the entropies of the sites, and the entropy of the mean of
    their p: scalars in [0, log K].
  """

  def sums(block: tuple[Array, Array]) -> tuple[Array, Array]:
    z, weight = block
    log_p = jax.nn.log_softmax(z @ codebook.T / temperature)
    p = jnp.exp(log_p)
    return -jnp.sum(weight @ (p * log_p)), weight @ p

  sites = (signals, weights)
  each, mean = _sum_chunks(sums, sites, _chunk(signals, codebook, chunk))
  return each, -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-30)))


def _chunk(signals: Array, codebook: Array, chunk: int | None) -> int:
  """How many sites at once are compared with K codes."""
  chunk = chunk or _ENTRIES // len(codebook)
  return max(1, min(chunk, len(signals)))


def _sum_chunks(function: Callable[[Any], Any], sites: Any, chunk: int) -> Any:
  """Adds up what a function gives for the chunks; zeros pad the last one."""
  function = jax.checkpoint(function)
  chunks = split_blocks(sites, chunk)
  first = jax.tree.map(lambda x: x[0], chunks)
  shapes = jax.eval_shape(function, first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def add(total: Any, block: Any) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, total, function(block)), None

  return lax.scan(add, zeros, chunks)[0]
