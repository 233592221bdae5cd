"""A gradient for the choice among many codes, by the softmax of their logits.

F. Shi et al., "Taming scalable visual tokenizer for autoregressive image
generation", arXiv 2412.02692 (IBQ). The logits of all sites and all codes,
[N, K], never exist at once: codes are taken in blocks, in both passes. A block
has all sites, so that a mesh that splits these splits each block: chunks of
sites would be smaller than the devices are many.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.distances import best_code
from lasers_jax.coding.search import split_columns

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
  block = _block(signals, codebook, block)
  soft = jnp.asarray(_soften(block, signals, codebook))
  return pass_through(soft, codebook, indices)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _soften(block: int, signals: Array, codebook: Array) -> Array:
  """Returns softmax(z·Cᵀ) sg(C): float32 [N, D]."""
  return _soften_forward(block, signals, codebook)[0]


def _soften_forward(block: int, signals: Array, codebook: Array):
  blocks = _split(codebook, block)
  total = _log_sums(signals, blocks, 1.0)

  def add(soft: Array, some: _Codes) -> tuple[Array, None]:
    p = jnp.exp(_logits(signals, some, 1.0) - total[:, None])
    return soft + p @ some.codes, None

  soft, _ = lax.scan(add, jnp.zeros_like(signals), blocks)
  return soft, (signals, codebook, total, soft)


def _soften_backward(block: int, kept: tuple, g: Array):
  signals, codebook, total, soft = kept
  mean = jnp.sum(g * soft, axis=1, keepdims=True)  # of g·c, by p

  def slope(some: _Codes) -> Array:
    p = jnp.exp(_logits(signals, some, 1.0) - total[:, None])
    return p * (g @ some.codes.T - mean)

  return _pull_back(slope, signals, codebook, block)


_soften.defvjp(_soften_forward, _soften_backward)


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
  block = _block(signals, codebook, block)
  return _entropies(block, temperature, signals, codebook, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _entropies(
  block: int, temperature: float, signals: Array, codebook: Array, weights
) -> tuple[Array, Array]:
  found, _ = _entropies_forward(block, temperature, signals, codebook, weights)
  return found


def _entropies_forward(
  block: int, temperature: float, signals: Array, codebook: Array, weights
):
  blocks = _split(codebook, block)
  total = _log_sums(signals, blocks, temperature)

  def add(each: Array, some: _Codes) -> tuple[Array, Array]:
    log_p = _logits(signals, some, temperature) - total[:, None]
    p = jnp.exp(log_p)
    return each - jnp.sum(p * log_p, axis=1), weights @ p

  each, mean = lax.scan(add, jnp.zeros_like(total), blocks)
  log_mean = jnp.log(jnp.maximum(mean, 1e-30))
  found = weights @ each, -jnp.sum(mean * log_mean)
  return found, (signals, codebook, weights, total, log_mean)


def _entropies_backward(
  block: int, temperature: float, kept: tuple, g: tuple[Array, Array]
):
  """Of s = ∂/∂p, the slope by the logits is p (s - Σ p s)."""
  signals, codebook, weights, total, log_mean = kept
  of_each, of_mean = g

  def inner(some: _Codes, log_mean: Array) -> tuple[Array, Array]:
    log_p = _logits(signals, some, temperature) - total[:, None]
    return jnp.exp(log_p), -of_each * log_p - of_mean * (log_mean + 1)[None]

  def add(sums: Array, some: tuple[_Codes, Array]) -> tuple[Array, None]:
    p, slopes = inner(*some)
    return sums + jnp.sum(p * slopes, axis=1), None

  blocks = _split(codebook, block)
  sums, _ = lax.scan(add, jnp.zeros_like(total), (blocks, log_mean))

  def slope(some: _Codes, log_mean: Array) -> Array:
    p, slopes = inner(some, log_mean)
    return weights[:, None] * p * (slopes - sums[:, None]) / temperature

  to_signals, to_codes = _pull_back(
    slope, signals, codebook, block, (log_mean,)
  )
  return to_signals, to_codes, sums


_entropies.defvjp(_entropies_forward, _entropies_backward)


def _pull_back(
  slope: Callable[..., Array],
  signals: Array,
  codebook: Array,
  block: int,
  more: tuple[Array, ...] = (),
) -> tuple[Array, Array]:
  """Returns the gradients to signals and codes of slopes of their products.

  Args:
    slope: maps a block of codes, and of `more`, to float32 [N, block].
  """

  def add(total: Array, some: tuple) -> tuple[Array, Array]:
    slopes = slope(*some)
    return total + slopes @ some[0].codes, slopes.T @ signals

  blocks = _split(codebook, block), *more
  to_signals, parts = lax.scan(add, jnp.zeros_like(signals), blocks)
  to_codes = parts.reshape(-1, codebook.shape[1])[: len(codebook)]
  return to_signals, to_codes


class _Codes(NamedTuple):
  """Holds blocks of codes, or one of them.

  Attributes:
    codes: float32 [blocks, block, D] or [block, D].
    real: bool [blocks, block] or [block]; False where a block is filled up.
  """

  codes: Array
  real: Array


def _block(signals: Array, codebook: Array, block: int | None) -> int:
  """How many codes at once are compared with N sites."""
  block = block or max(_ENTRIES // max(len(signals), 1), _FEWEST)
  return min(block, len(codebook))


def _split(codebook: Array, block: int) -> _Codes:
  codes, numbers = split_columns(codebook, block)
  return _Codes(codes, numbers < len(codebook))


def _logits(signals: Array, some: _Codes, temperature: float) -> Array:
  """Returns the logits of a block: float32 [N, block]."""
  return jnp.where(some.real, signals @ some.codes.T / temperature, _NONE)


def _log_sums(signals: Array, blocks: _Codes, temperature: float) -> Array:
  """Returns log Σ exp(logits) over all codes: float32 [N]."""

  def add(total: Array, some: _Codes) -> tuple[Array, None]:
    logits = _logits(signals, some, temperature)
    return jnp.logaddexp(total, jax.nn.logsumexp(logits, axis=1)), None

  start = jnp.full(len(signals), _NONE, jnp.float32)
  return lax.scan(add, start, blocks)[0]
