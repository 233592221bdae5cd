"""Codebooks of vector quantizers: look-up, EMA K-means.

A. van den Oord, O. Vinyals and K. Kavukcuoglu, "Neural discrete
representation learning", NeurIPS 2017 (appendix A.1 for the EMA). That all
codes may have to move as one is the diagnosis of M. Huh et al., "Straightening
out the straight-through estimator", ICML 2023 (section 4.2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lasers_jax.coding.dictionary import pick_signals
from lasers_jax.coding.distances import best_code
from lasers_jax.coding.numbers import as_float32, check_shapes, finite_rows

# Divisors are at least this: the smallest normal float32.
_TINY = float(jnp.finfo(jnp.float32).tiny)
_EPSILON = float(jnp.finfo(jnp.float32).eps)


@jax.jit
def nearest_code(signals: Array, codebook: Array) -> Array:
  """Finds the nearest code of each signal in the Euclidean distance.

  Args:
    signals: [N, D]; one with an entry that is not finite counts as zero.
    codebook: [K, D]; a code with such an entry is never chosen. Computed in
      float32 about the mean of the codes.

  Returns:
    int32 [N], in [0, K); the lowest index wins a tie.

  Raises:
    ValueError: the shapes do not fit.
  """
  check_shapes(signals=(signals, 'N D'), codebook=(codebook, 'K D'))
  return best_code(signals, codebook, by_distance=True)


def histogram(indices: Array, k: int, weights: Array | None = None) -> Array:
  """Counts how often each of K codes is used: float32 [K].

  Args:
    indices: int32 of any shape, in [0, K).
    k: codes.
    weights: of the same shape, how much each index counts; None for 1.
  """
  each = 1.0 if weights is None else weights.reshape(-1)
  return jnp.zeros(k, jnp.float32).at[indices.reshape(-1)].add(each)


class CodebookStatistics(NamedTuple):
  """Holds moving sums of EMA K-means, in which the mean count is 1."""

  counts: Array  # [K], how often a code is used
  sums: Array  # [K, D], the sum of the signals that used it


def update_codebook(
  statistics: CodebookStatistics,
  signals: Array,
  indices: Array,
  decay: float,
  weights: Array | None = None,
  codes: Array | None = None,
) -> tuple[CodebookStatistics, Array]:
  """Moves each code to the moving mean of the signals that chose it.

  A code that no signal chooses stays where it is, to the last bit: so counts
  are not smoothed as in the paper, which draws such codes to the origin.

  Args:
    statistics: counts [K], sums [K, D].
    signals: [N, D]; indices: int32 [N], their codes.
    decay: of the moving sums, in [0, 1).
    weights: [N], how much each signal counts; None for 1.
    codes: [K, D], where the codes are; None for the means so far.

  Returns:
    The new statistics and the new codebook [K, D].

  Raises:
    ValueError: the shapes do not fit.
  """
  check_shapes(
    counts=(statistics.counts, 'K'),
    sums=(statistics.sums, 'K D'),
    signals=(signals, 'N D'),
    indices=(indices, 'N'),
    weights=(weights, 'N'),
    codes=(codes, 'K D'),
  )
  k = statistics.counts.shape[0]
  if codes is None:
    codes = _means(*statistics)
  if weights is None:
    weights = jnp.ones(indices.shape, jnp.float32)
  weights = (1 - decay) * k * weights / jnp.maximum(jnp.sum(weights), 1e-30)
  batch = histogram(indices, k, weights)
  counts = decay * statistics.counts + batch
  sums = decay * statistics.sums
  sums = sums.at[indices].add(weights[:, None] * signals)
  codes = jnp.where(batch[:, None] > 0, _means(counts, sums), codes)
  return CodebookStatistics(counts, sums), codes


def follow_signals(
  codes: Array,
  use: Array,
  signals: Array,
  indices: Array,
  weights: Array | None = None,
  below: float = 0.0,
) -> Array:
  """Moves codes as the signals have moved as a whole since they were learned.

  Of all maps a c + b of the codes, a and b [D], the identity has the minimum
  squared error where the codes are the means of their signals. Where another
  map has a far smaller error, the signals have been scaled or shifted, and the
  codes follow by that map; moving means would lag behind. The motion is shrunk
  by the part that chance explains (W. James and C. Stein, "Estimation with
  quadratic loss", 1961, the positive part), and so is zero, to the last bit,
  for signals at rest.

  A code that this batch does not choose moves only if it has been chosen
  recently, and if the batch chooses at least a quarter of the codes that
  earlier batches chose.

  If there are so many codes that errors are far below the spread of signals,
  the codes fit signals of any smaller spread too, and no motion is detected.

  Args:
    codes: [K, D]; use: [K], moving average of how often each is chosen.
    signals: [N, D]; indices: int32 [N], their codes.
    weights: [N], how much each signal counts; None for 1.
    below: a code is in use above this fraction of the mean use.

  Returns:
    The codes [K, D].
  """
  if weights is None:
    weights = jnp.ones(indices.shape, jnp.float32)
  counts = histogram(indices, len(codes), weights)
  total = jnp.sum(counts)
  motion, strength = _common_motion(codes, counts, signals, indices, weights)
  # The mean of `strength` by chance is 1, its deviation 1 / sqrt(D).
  least = 1 + 8 / codes.shape[1] ** 0.5
  fractions = use / jnp.maximum(jnp.sum(use), _TINY)
  expected = jnp.sum(1 - jnp.exp(-total * fractions))
  whole = jnp.sum(counts > 0) > jnp.maximum(0.25 * expected, 2)
  moves = (counts > 0) | (whole & (use > below * jnp.mean(use)))
  moved = codes + (1 - least / jnp.maximum(strength, least)) * motion
  return jnp.where((moves & (strength > least))[:, None], moved, codes)


def _common_motion(
  codes: Array, counts: Array, signals: Array, indices: Array, weights: Array
) -> tuple[Array, Array]:
  """Fits errors by an affine function of the code in each dimension.

  Returns:
    Its values at the codes, [K, D], and by what factor it explains more of the
    errors than chance would.
  """

  def over_codes(rows: Array) -> Array:
    return jnp.sum(rows, axis=0, keepdims=True)

  counts = counts[:, None]
  total = jnp.maximum(jnp.sum(counts), _TINY)
  errors = signals - codes[indices]
  sums = jnp.zeros_like(codes).at[indices].add(weights[:, None] * errors)
  about = codes - over_codes(counts * codes) / total
  spread = over_codes(counts * about**2)
  shift = over_codes(sums) / total
  stretch = over_codes(about * sums) / jnp.maximum(spread, _TINY)
  motion = shift + stretch * about
  # The noise is what signals scatter about the means of their codes, or, if
  # larger since signals of one image are alike, what these are off the fit.
  means = sums / jnp.maximum(counts, _TINY)
  apart = weights[:, None] * (errors - means[indices]) ** 2
  within = jnp.sum(apart, axis=0, keepdims=True)
  between = over_codes(counts * (means - motion) ** 2)
  chosen = jnp.sum(counts > 0)
  noise = jnp.maximum(
    within / jnp.maximum(total - chosen, 1),
    between / jnp.maximum(chosen - 2, 1),
  )
  rounding = (4 * _EPSILON) ** 2 * over_codes(counts * codes**2)
  explained = total * shift**2 + spread * stretch**2
  strength = explained / 2 / jnp.maximum(noise + rounding, _TINY)
  return motion, jnp.mean(strength)


def _means(counts: Array, sums: Array) -> Array:
  return sums / jnp.maximum(counts, _TINY)[:, None]


def kmeans(
  key: Array, signals: Array, k: int, rounds: int = 10
) -> tuple[Array, Array]:
  """Clusters signals by Lloyd's algorithm, from randomly drawn signals.

  A code that no signal chooses stays where it is.

  Args:
    key: of the draw.
    signals: [N, D], of which one with an entry that is not finite counts as
      zero; k: codes; rounds: of the algorithm.

  Returns:
    The codebook [K, D], and the fraction of signals that chose each code in the
    last round, times K: [K].

  Raises:
    ValueError: signals have another shape.
  """
  check_shapes(signals=(signals, 'N D'))

  def move(_, carry: tuple[Array, Array]):
    codes, _ = carry
    indices = nearest_code(signals, codes)
    counts = histogram(indices, k)
    sums = jnp.zeros_like(codes).at[indices].add(signals)
    means = sums / jnp.maximum(counts, 1)[:, None]
    use = counts * k / indices.shape[0]
    return jnp.where(counts[:, None] > 0, means, codes), use

  signals = finite_rows(as_float32(signals))
  # Sums of numbers far from zero lose what tells the signals apart.
  centre = jnp.mean(signals, axis=0, keepdims=True)
  signals -= centre
  start = pick_signals(key, signals, k), jnp.ones(k, jnp.float32)
  codes, use = lax.fori_loop(0, rounds, move, start)
  return codes + centre, use


def sinkhorn(
  costs: Array,
  rounds: int = 5,
  sharpness: float = 10.0,
  weights: Array | None = None,
) -> Array:
  """Spreads signals evenly over codes (OptVQ, arXiv 2412.15195, algorithm 1).

  Args:
    costs: [N, K], such as distances; they are standardized over all entries.
    rounds: of scaling columns and rows in turn.
    sharpness: the factor of the costs in the exponent.
    weights: [N], how much each signal counts; None for 1.

  Returns:
    The plan [N, K]: rows sum to the weight of the signal, 1 / N, and columns
    nearly to 1 / K.

  Raises:
    ValueError: the shapes do not fit.
  """
  check_shapes(costs=(costs, 'N K'), weights=(weights, 'N'))
  costs = as_float32(costs)
  n, k = costs.shape
  weights = jnp.ones(n, jnp.float32) if weights is None else weights
  fractions = (weights / jnp.maximum(jnp.sum(weights), 1e-30))[:, None]
  mean = jnp.sum(fractions * costs) / k
  deviation = jnp.sqrt(jnp.sum(fractions * (costs - mean) ** 2) / k)
  log_fractions = jnp.log(jnp.maximum(fractions, 1e-30))
  # At least what rounding makes of costs that are all the same.
  deviation = jnp.maximum(deviation + 1e-6 * jnp.abs(mean), 1e-30)
  plan = log_fractions - sharpness * (costs - mean) / deviation
  for _ in range(rounds):
    plan -= jax.nn.logsumexp(plan, axis=0, keepdims=True) + jnp.log(k)
    plan += log_fractions - jax.nn.logsumexp(plan, axis=1, keepdims=True)
  return jnp.exp(plan)
