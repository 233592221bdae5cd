"""Measures the use of a codebook by histograms of codes, in float64."""

import numpy as np


def usage(counts):
  """Returns the fraction of codes that occur, in [0, 1]; 0 where none does.

  counts: [K], how often each code was used over the whole split.
  """
  return float(np.mean(_histogram(counts) > 0))


def perplexity(counts):
  """Returns the number of equally likely codes with the entropy of counts.

  counts: [K]. In [1, K]: 1 for a single code in use, K for a uniform histogram;
  0 where nothing was counted.
  """
  if not np.any(_histogram(counts)):
    return 0.0
  return float(2 ** entropy_bits(counts))


def entropy_bits(counts):
  """Returns the entropy of a histogram in bits per symbol, in [0, log2 K].

  counts: [K]; 0 where nothing was counted. An ideal coder that knows the
  histogram, and nothing of the context, spends this many bits.
  """
  counts = _histogram(counts)
  counts = counts[counts > 0]
  if counts.size < 2:
    return 0.0
  probabilities = counts / counts.sum()
  return float(-np.sum(probabilities * np.log2(probabilities)))


def _histogram(counts):
  counts = np.asarray(counts, np.float64)
  if counts.ndim != 1 or not counts.size or not np.all(counts >= 0):
    raise ValueError('counts must be [K] with K > 0 and no negative entry')
  return counts
