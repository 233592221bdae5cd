"""Anchors: the signals that rarely used codes move to.

C. Zheng and A. Vedaldi, "Online clustered codebook", ICCV 2023 (CVQ-VAE).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.coding.codebook import nearest_code
from lasers_jax.coding.dictionary import draw_rows, normalize_codes
from lasers_jax.coding.index_propagation import largest_product
from lasers_jax.coding.search import in_blocks, matmul


class Distance(NamedTuple):
  """Measures distances for the look-up and for the anchors.

  `nearest(signals [N, D], codebook [K, D])` is int32 [N], in [0, K);
  `similarity` of the same arrays is [N, K], and may leave out what is equal
  for all codes of a signal.
  """

  nearest: Callable[[Array, Array], Array]
  similarity: Callable[[Array, Array], Array]


def nearest_by_angle(signals: Array, codebook: Array) -> Array:
  """Finds the code of the largest cosine with each signal, int32 [N].

  A signal or a code of zero has the cosine 0 with all.
  """
  # The length of a signal changes nothing, and is left as it is.
  return largest_product(signals, normalize_codes(codebook))


def cosines(signals: Array, codebook: Array) -> Array:
  """Computes the cosines [N, K] of signals [N, D] and codes [K, D]."""
  return matmul(normalize_codes(signals), normalize_codes(codebook).T)


def negative_squares(signals: Array, codebook: Array) -> Array:
  """Computes |z|² - |z - c|² of signals [N, D] and codes [K, D]: [N, K].

  Computed about the mean of the codes, since large numbers would cancel.
  """
  centre = jnp.mean(codebook, axis=0, keepdims=True)
  signals, codebook = signals - centre, codebook - centre
  norms = jnp.sum(codebook**2, axis=1)
  return 2 * matmul(signals, codebook.T) - norms[None]


DISTANCES = {
  'cosine': Distance(nearest_by_angle, cosines),
  'euclidean': Distance(nearest_code, negative_squares),
}


def anchor_rate(use: Array, decay: float) -> Array:
  """Computes how far each code goes to its anchor (α_k of the paper).

  Args:
    use: [K], moving average of how often each code is used, in units in which
      the mean use of a code is 1: the paper's N_k·K.
    decay: γ of that average.

  Returns:
    float32 [K] in [0, 1): nearly 1 for a code without use, and nearly 0 from
    a hundredth of the mean use on (at decay 0.99).
  """
  return jnp.exp(-10 / (1 - decay) * use - 1e-3)


def closest(
  key: Array, codes: Array, signals: Array, distance: Distance
) -> Array:
  """Picks for each code the signal nearest to it: rows int32 [K]."""
  del key
  return distance.nearest(codes, signals)


def random(
  key: Array, codes: Array, signals: Array, distance: Distance
) -> Array:
  """Draws a signal for each code, none twice if N >= K: rows int32 [K].

  The released code draws from a pool of features of the last batches; this
  draws from the batch.
  """
  del distance
  n, k = signals.shape[0], codes.shape[0]
  return draw_rows(key, n, k)


def probrandom(
  key: Array, codes: Array, signals: Array, distance: Distance
) -> Array:
  """Draws a signal for each code, near ones more often: rows int32 [K].

  The probability of a signal is the softmax of its similarity to the code
  over the signals.
  """
  n = signals.shape[0]

  def draw(block: tuple[Array, Array]) -> Array:
    codes, uniform = block
    p = jax.nn.softmax(distance.similarity(codes, signals))
    below = jnp.cumsum(p, axis=1) <= uniform[:, None]
    return jnp.minimum(jnp.sum(below, axis=1, dtype=jnp.int32), n - 1)

  uniform = jax.random.uniform(key, codes.shape[:1], jnp.float32)
  return in_blocks(draw, (codes, uniform), n)


# (key, codes [K, D], signals [N, D], distance) -> rows of signals, int32 [K]
ANCHORS = {'closest': closest, 'random': random, 'probrandom': probrandom}
