"""Codebooks of vector quantizers: look-up, EMA K-means.

A. van den Oord, O. Vinyals and K. Kavukcuoglu, "Neural discrete
representation learning", NeurIPS 2017 (appendix A.1 for the EMA).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.dictionary import pick_signals
from lasers_jax.coding.distances import best_code


@jax.jit
def nearest_code(signals: Array, codebook: Array) -> Array:
  """Finds the nearest code of each signal in the Euclidean distance.

  Args:
    signals: [N, D]; one with an entry that is not finite counts as zero.
    codebook: [K, D]; a code with such an entry is never chosen. Computed in
      float32 about the mean of the codes.

  Returns:
    int32 [N], in [0, K); the lowest index wins a tie.
  """
  return best_code(signals, codebook, by_distance=True)


def histogram(
  indices: Array, k: int, weights: Array | None = None
) -> Array:
  """Counts how often each of K codes is used: float32 [K].

  Args:
    indices: int32 of any shape, in [0, K).
    k: codes.
    weights: of the same shape, how much each index counts; None for 1.
  """
  weights = 1.0 if weights is None else weights.reshape(-1)
  return jnp.zeros(k).at[indices.reshape(-1)].add(weights)


class CodebookStatistics(NamedTuple):
  """Moving sums of EMA K-means, in units in which a mean code counts 1."""

  counts: Array  # [K], how often a code is used
  sums: Array  # [K, D], the sum of the signals that used it


def update_codebook(
  statistics: CodebookStatistics,
  signals: Array,
  indices: Array,
  decay: float,
  smoothing: float = 1e-5,
  weights: Array | None = None,
) -> tuple[CodebookStatistics, Array]:
  """Moves each code towards the mean of the signals that chose it.

  Args:
    statistics: counts [K], sums [K, D].
    signals: [N, D]; indices: int32 [N], their codes.
    decay: of the moving sums, in [0, 1).
    smoothing: Laplace smoothing of the counts.
    weights: [N], how much each signal counts; None for 1.

  Returns:
    The new statistics and the new codebook [K, D].
  """
  k = statistics.counts.shape[0]
  if weights is None:
    weights = jnp.ones(indices.shape)
  share = (1 - decay) * k / jnp.maximum(jnp.sum(weights), 1e-30)
  weights = share * weights
  counts = decay * statistics.counts
  counts = counts.at[indices].add(weights)
  sums = decay * statistics.sums
  sums = sums.at[indices].add(weights[:, None] * signals)
  total = jnp.sum(counts)
  smooth = (counts + smoothing) / (total + k * smoothing) * total
  return CodebookStatistics(counts, sums), sums / smooth[:, None]


def kmeans(
  key: Array, signals: Array, k: int, rounds: int = 10
) -> tuple[Array, Array]:
  """Clusters signals by Lloyd's algorithm, from signals drawn by chance.

  A code that no signal chooses stays where it is.

  Args:
    key: of the draw.
    signals: [N, D]; k: codes; rounds: of the algorithm.

  Returns:
    The codebook [K, D], and the share of signals that chose each code in the
    last round, times K: [K].
  """

  def move(_, carry: tuple[Array, Array]):
    codes, _ = carry
    indices = nearest_code(signals, codes)
    counts = histogram(indices, k)
    sums = jnp.zeros_like(codes).at[indices].add(signals)
    means = sums / jnp.maximum(counts, 1)[:, None]
    use = counts * k / indices.shape[0]
    return jnp.where(counts[:, None] > 0, means, codes), use

  start = pick_signals(key, signals, k)
  return lax.fori_loop(0, rounds, move, (start, jnp.ones(k)))


def sinkhorn(
  costs: Array,
  rounds: int = 5,
  sharpness: float = 10.0,
  weights: Array | None = None,
) -> Array:
  """Spreads signals evenly over codes (OptVQ, arXiv 2412.15195, algorithm 1).

  Args:
    costs: [N, K], as distances; standardized over all entries inside.
    rounds: of scaling columns and rows in turn.
    sharpness: the factor of the costs in the exponent.
    weights: [N], how much each signal counts; None for 1.

  Returns:
    The plan [N, K]: rows sum to the share of the signal, 1 / N, and columns
    nearly to 1 / K.
  """
  n, k = costs.shape
  weights = jnp.ones(n) if weights is None else weights
  shares = (weights / jnp.maximum(jnp.sum(weights), 1e-30))[:, None]
  mean = jnp.sum(shares * costs) / k
  deviation = jnp.sqrt(jnp.sum(shares * (costs - mean) ** 2) / k)
  log_shares = jnp.log(jnp.maximum(shares, 1e-30))
  plan = log_shares - sharpness * (costs - mean) / (deviation + 1e-6)
  for _ in range(rounds):
    plan -= jax.nn.logsumexp(plan, axis=0, keepdims=True) + jnp.log(k)
    plan += log_shares - jax.nn.logsumexp(plan, axis=1, keepdims=True)
  return jnp.exp(plan)
