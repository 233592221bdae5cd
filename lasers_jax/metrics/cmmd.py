"""Computes CMMD, the maximum mean discrepancy of CLIP embeddings of images.

Jayasumana et al., arXiv 2401.09603, with the numbers of its published code.
"""

import numpy as np

SIGMA = 10.0
SCALE = 1000.0
_CHUNK = 2048  # rows: a block of the kernel matrix takes 32 MiB


def cmmd(x, y):
  """Returns 1000 (mean k(x, x) + mean k(y, y) - 2 mean k(x, y)).

  x [n, d], y [m, d]: embeddings, of any order, taken as they are: CLIP's are
  given at unit length by `ClipImageTower`. k(a, b) = exp(-|a - b|^2 / 200),
  that is sigma 10. The means hold the diagonals, so the estimator is biased
  and falls with n and m towards the value: state both beside it. For unit
  vectors it is close to 10 |mean x - mean y|^2. float64 on the host, in blocks.
  Raises ValueError where a set is empty or the widths differ.
  """
  x, y = _embeddings(x), _embeddings(y)
  if x.shape[1] != y.shape[1]:
    raise ValueError(f'embeddings of width {x.shape[1]} and {y.shape[1]}')
  # Distances stay, and less of them is lost by cancellation.
  centre = y.mean(axis=0)
  x, y = x - centre, y - centre
  total = _kernel_mean(x, x) + _kernel_mean(y, y) - 2 * _kernel_mean(x, y)
  return float(SCALE * total)


def _embeddings(x):
  x = np.asarray(x, np.float64)
  if x.ndim != 2 or not len(x):
    raise ValueError(f'embeddings must be [n, d] with n > 0, got {x.shape}')
  return x


def _kernel_mean(x, y):
  """Returns the mean of k - 1 over all pairs; the ones cancel in the sum."""
  blocks = [
    _kernel_sum(x[i : i + _CHUNK], y[j : j + _CHUNK])
    for i in range(0, len(x), _CHUNK)
    for j in range(0, len(y), _CHUNK)
  ]
  return np.sum(blocks) / (len(x) * len(y))


def _kernel_sum(x, y):
  squares = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)[None]
  distances = np.maximum(squares - 2 * x @ y.T, 0)
  return np.expm1(distances / (-2 * SIGMA**2)).sum()
