"""A gradient for the choice among very many codes, by the softmax behind it.

F. Shi et al., "Taming scalable visual tokenizer for autoregressive image
generation", arXiv 2412.02692 (IBQ). The logits of all sites and all codes,
[N, K], never exist at once: sites come in chunks, forwards and backwards.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.search import in_blocks, largest

# Logits of a chunk: 128 MiB, and a few arrays of that size live at a time.
_ENTRIES = 2**25


def chunk_size(k: int) -> int:
  """Returns how many sites at once are compared with K codes."""
  return max(1, _ENTRIES // k)


@jax.jit
def largest_product(signals: Array, codebook: Array) -> Array:
  """Finds the code with the largest inner product with each signal.

  Args:
    signals: [N, D]; codebook: [K, D]. Computed in float32.

  Returns:
    int32 [N], in [0, K); the lowest index wins a tie.
  """
  codebook = codebook.astype(jnp.float32)
  signals = signals.astype(jnp.float32)

  def search(block: Array) -> Array:
    return largest(block @ codebook.T)

  return in_blocks(search, signals, codebook.shape[0])


def pass_through(soft: Array, codebook: Array, indices: Array) -> Array:
  """Looks up the chosen codes; their choice has the gradient of a soft one.

  This is the straight-through one-hot vector times the codebook: value and
  gradient to the codebook are those of the look-up, and what reaches the
  probabilities p is the gradient of `soft`.

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
    chunk: sites at once, at most; None takes `chunk_size`. It changes memory
      and time, not the result.

  Returns:
    float32 [N, D], equal to codebook[indices].
  """

  def soften(block: Array) -> Array:
    p = jax.nn.softmax(block @ codebook.T)
    return p @ lax.stop_gradient(codebook)

  soft = _map_chunks(soften, signals, chunk or chunk_size(codebook.shape[0]))
  return pass_through(soft, codebook, indices)


def entropies(
  signals: Array,
  codebook: Array,
  weights: Array,
  temperature: float,
  chunk: int | None = None,
) -> tuple[Array, Array]:
  """Computes how sure the choices of codes are, and how varied.

  Of p = softmax(z·Cᵀ / temperature). A small first entropy: each site is sure
  of its code. A large second one: together they use all codes.

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
  chunk = chunk or chunk_size(codebook.shape[0])
  each, mean = _sum_chunks(sums, sites, chunk)
  return each, -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-30)))


def _map_chunks(
  function: Callable[[Any], Any], sites: Array, chunk: int
) -> Array:
  """Applies a function of sites [chunk, ...]; nothing inside it is kept."""
  n = sites.shape[0]
  chunks = lax.map(jax.checkpoint(function), _split(sites, chunk))
  return chunks.swapaxes(0, 1).reshape(-1, *chunks.shape[2:])[:n]


def _sum_chunks(
  function: Callable[[Any], Any], sites: Any, chunk: int
) -> Any:
  """Adds up what a function gives for the chunks; zeros pad the last one."""
  function = jax.checkpoint(function)
  chunks = jax.tree.map(lambda x: _split(x, chunk), sites)
  first = jax.tree.map(lambda x: x[0], chunks)
  shapes = jax.eval_shape(function, first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def add(total: Any, block: Any) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, total, function(block)), None

  return lax.scan(add, zeros, chunks)[0]


def _split(x: Array, chunk: int) -> Array:
  """Arranges [N, ...] as [N / chunk, chunk, ...]."""
  n = x.shape[0]
  chunk = max(1, min(chunk, n))
  count = -(-n // chunk)
  # The rows of a chunk lie `count` apart: where a mesh splits N, each device
  # then holds its share of every chunk.
  x = jnp.pad(x, ((0, count * chunk - n), *[(0, 0)] * (x.ndim - 1)))
  return x.reshape(chunk, count, *x.shape[1:]).swapaxes(0, 1)
