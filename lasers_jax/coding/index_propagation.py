"""A gradient for the choice among many codes, by the softmax of their logits.

F. Shi et al., "Taming scalable visual tokenizer for autoregressive image
generation", arXiv 2412.02692 (IBQ). The logits of all sites and all codes,
[N, K], never exist at once: codes are taken in blocks, in both passes. A block
has all sites, so that a mesh that splits these splits each block: chunks of
sites would be smaller than the devices are many.
"""

import functools
from typing import NamedTuple, cast

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


class SoftChoices(NamedTuple):
  """What softmax(z·Cᵀ) says of the codes of N sites.

  Attributes:
    soft: p @ sg(C), p = softmax(z·Cᵀ): float32 [N, D].
    each: the mean entropy of the sites' p = softmax(z·Cᵀ / temperature), a
      scalar in [0, log K]. If it is small, each site is sure of its code.
    together: the entropy of the mean of these p, likewise. If it is large, the
      sites together use all codes.
  """

  soft: Array
  each: Array
  together: Array


def soft_choices(
  signals: Array,
  codebook: Array,
  weights: Array,
  temperature: float,
  block: int | None = None,
) -> SoftChoices:
  """Returns the mean of the codes and the entropies of soft choices.

  All of it has one gradient to the codebook: one product in a block, and one
  sum over the devices of a mesh.

  Args:
    signals: float32 [N, D]; codebook: float32 [K, D].
    weights: float32 [N], of sum 1: how much each site counts in the entropies.
    temperature: of the entropies; positive.
    block: codes at once, at most; None takes what fits. It changes memory and
      time, not the result.
  """
  block = _block(signals, codebook, block)
  found = _choose(block, temperature, signals, codebook, weights)
  return cast(SoftChoices, found)


def pass_through(soft: Array, chosen: Array) -> Array:
  """Returns the chosen codes, with the gradient of a soft choice.

  This is the straight-through one-hot vector times the codebook: the value, and
  the gradient to the codebook, are those of the look-up; the gradient to the
  probabilities p is that of `soft`.

  Args:
    soft: [..., D], p @ sg(codebook).
    chosen: [..., D], codebook[indices].
  """
  # The usual soft + sg(hard - soft) rounds; this adds zero.
  return chosen + (soft - lax.stop_gradient(soft))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _choose(
  block: int, temperature: float, signals: Array, codebook: Array, weights
) -> SoftChoices:
  found, _ = _choose_forward(block, temperature, signals, codebook, weights)
  return found


def _choose_forward(
  block: int, temperature: float, signals: Array, codebook: Array, weights
):
  blocks = _split(codebook, block)
  totals = _log_sums(signals, blocks, temperature)

  def add(carry: tuple[Array, Array], some: _Codes):
    soft, each = carry
    p, log_share = _shares(signals, some, totals, temperature)
    share = jnp.exp(log_share)
    each -= jnp.sum(share * log_share, axis=1)
    return (soft + p @ some.codes, each), weights @ share

  start = jnp.zeros_like(signals), jnp.zeros(len(signals), jnp.float32)
  (soft, each), mean = lax.scan(add, start, blocks)
  log_mean = jnp.log(jnp.maximum(mean, 1e-30))
  found = SoftChoices(soft, weights @ each, -jnp.sum(mean * log_mean))
  return found, (signals, codebook, weights, totals, soft, log_mean)


def _choose_backward(
  block: int, temperature: float, kept: tuple, g: SoftChoices
):
  """Of s = ∂/∂p, the slope by the logits is p (s - Σ p s)."""
  signals, codebook, weights, totals, soft, log_mean = kept
  of_soft, of_each, of_mean = g
  mean = jnp.sum(of_soft * soft, axis=1, keepdims=True)  # Σ p s of `soft`
  blocks = _split(codebook, block), log_mean

  def entropic(some: _Codes, log_mean: Array) -> tuple[Array, Array, Array]:
    p, log_share = _shares(signals, some, totals, temperature)
    slopes = -of_each * log_share - of_mean * (log_mean + 1)[None]
    return p, jnp.exp(log_share), slopes

  def add(sums: Array, some: tuple[_Codes, Array]) -> tuple[Array, None]:
    _, share, slopes = entropic(*some)
    return sums + jnp.sum(share * slopes, axis=1), None

  none = jnp.zeros(len(signals), jnp.float32)
  sums, _ = lax.scan(add, none, blocks)

  def pull(total: Array, some: tuple[_Codes, Array]) -> tuple[Array, Array]:
    p, share, slopes = entropic(*some)
    slopes = weights[:, None] * share * (slopes - sums[:, None]) / temperature
    slopes += p * (of_soft @ some[0].codes.T - mean)
    return total + slopes @ some[0].codes, slopes.T @ signals

  to_signals, parts = lax.scan(pull, jnp.zeros_like(signals), blocks)
  to_codes = parts.reshape(-1, codebook.shape[1])[: len(codebook)]
  return to_signals, to_codes, sums


_choose.defvjp(_choose_forward, _choose_backward)


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


def _logits(signals: Array, some: _Codes) -> Array:
  """Returns the logits of a block: float32 [N, block]."""
  return jnp.where(some.real, signals @ some.codes.T, _NONE)


def _log_sums(
  signals: Array, blocks: _Codes, temperature: float
) -> tuple[Array, Array]:
  """Returns log Σ exp(logits) over all codes: float32 [N].

  Of the logits, and of those divided by the temperature.
  """

  def joined(total: Array, logits: Array) -> Array:
    return jnp.logaddexp(total, jax.nn.logsumexp(logits, axis=1))

  def add(totals: tuple[Array, Array], some: _Codes):
    logits = _logits(signals, some)
    divided = logits / temperature
    return (joined(totals[0], logits), joined(totals[1], divided)), None

  start = jnp.full(len(signals), _NONE, jnp.float32)
  return lax.scan(add, (start, start), blocks)[0]


def _shares(
  signals: Array, some: _Codes, totals: tuple[Array, Array], temperature: float
) -> tuple[Array, Array]:
  """Returns p of a block of codes, and log p at the temperature."""
  logits = _logits(signals, some)
  of_logits, of_divided = (total[:, None] for total in totals)
  return jnp.exp(logits - of_logits), logits / temperature - of_divided
