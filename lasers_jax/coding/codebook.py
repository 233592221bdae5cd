"""Codebooks of vector quantizers: look-up, EMA K-means.

A. van den Oord, O. Vinyals and K. Kavukcuoglu, "Neural discrete
representation learning", NeurIPS 2017 (appendix A.1 for the EMA).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.coding.search import block_size, in_blocks, largest


@jax.jit
def nearest_code(signals: Array, codebook: Array) -> Array:
  """Finds the nearest code of each signal in the Euclidean distance.

  Args:
    signals: [N, D]; codebook: [K, D]. Computed in float32.

  Returns:
    int32 [N], in [0, K); the lowest index wins a tie.
  """
  codebook = codebook.astype(jnp.float32)
  # |z|^2 is the same for all codes, and left out.
  half_norms = 0.5 * jnp.sum(codebook**2, axis=1)

  def search(block: Array) -> Array:
    return largest(block @ codebook.T - half_norms[None])

  signals = signals.astype(jnp.float32)
  return in_blocks(search, signals, block_size(codebook.shape[0]))


def histogram(indices: Array, k: int) -> Array:
  """Counts how often each of K codes is used: float32 [K]."""
  return jnp.zeros(k).at[indices.reshape(-1)].add(1.0)


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
) -> tuple[CodebookStatistics, Array]:
  """Moves each code towards the mean of the signals that chose it.

  Args:
    statistics: counts [K], sums [K, D].
    signals: [N, D]; indices: int32 [N], their codes.
    decay: of the moving sums, in [0, 1).
    smoothing: Laplace smoothing of the counts.

  Returns:
    The new statistics and the new codebook [K, D].
  """
  k = statistics.counts.shape[0]
  share = (1 - decay) * k / indices.shape[0]
  sums = jnp.zeros_like(statistics.sums).at[indices].add(signals)
  counts = decay * statistics.counts + share * histogram(indices, k)
  sums = decay * statistics.sums + share * sums
  total = jnp.sum(counts)
  smooth = (counts + smoothing) / (total + k * smoothing) * total
  return CodebookStatistics(counts, sums), sums / smooth[:, None]
