"""Computes precision, recall, density and coverage, by nearest neighbours.

Distances are Euclidean and in float64, on the host, tile by tile: memory does
not grow with the number of pairs.
"""

import math

import numpy as np

from lasers_jax.errors import InputError

_TILE = 1024  # rows of either set: a tile of distances takes 8 MiB
# Squared distances that are less than this fraction of the squared norms have
# lost more than eight digits in the product that gives the others.
_NEAR = 1e-7


def manifold_scores(real, fake, k=5):
  """Returns the fractions of each set that lie near the other, by name.

  real [n, d], fake [m, d]: features or latents, finite. Each row has a closed
  ball that reaches to the k-th nearest other row of its set.
    precision: fraction of fake rows in the ball of any real row, in [0, 1].
    recall: fraction of real rows in the ball of any fake row, in [0, 1].
    density: real balls that hold a fake row, on average, over k, at least 0;
      1 is expected of two draws of one distribution.
    coverage: fraction of real balls that hold a fake row, in [0, 1].
    expected_coverage: `expected_coverage(n, m, k)`, beside it.
  Usual are k = 3 with large sets for the first two (Kynkäänniemi et al. 2019,
  arXiv 1904.06991) and k = 5 for the others (Naeem et al. 2020, arXiv
  2002.09797). All move with n, m and k: state them. Time grows as n^2, n m and
  m^2. Raises InputError where k is not in 1 to n - 1 and to m - 1, and
  ValueError where the sets are no pair (`as_samples`).
  """
  real, fake = as_samples(real=real, fake=fake)
  real_radii, fake_radii = _radii(real, k), _radii(fake, k)
  balls = np.zeros(len(fake), int)
  covered, recalled = np.zeros(len(real), bool), np.zeros(len(real), bool)
  for rows, columns, distances in tiles(fake, real):
    held = distances <= real_radii[columns]
    balls[rows] += held.sum(axis=1)
    covered[columns] |= held.any(axis=0)
    recalled[columns] |= (distances <= fake_radii[rows, None]).any(axis=0)
  return {
    'precision': float(np.mean(balls > 0)),
    'recall': float(recalled.mean()),
    'density': float(balls.mean() / k),
    'coverage': float(covered.mean()),
    'expected_coverage': expected_coverage(len(real), len(fake), k),
  }


def expected_coverage(n, m, k):
  """Returns the mean coverage of n real rows by m of the same distribution.

  1 - (n-1)...(n-k) / ((n+m-1)...(n+m-k)) for any continuous distribution
  (Naeem et al. 2020): a ball is empty where the k nearest of the n + m - 1
  other rows are all real.
  """
  return 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))


def squared_radii(x, k):
  """Returns the squared distance of each row to the k-th nearest other, [n].

  x [n, d]. Equal rows are at distance 0 of each other. Raises InputError where
  k is not in 1 to n - 1.
  """
  if not 1 <= k < len(x):
    raise InputError(
      f'the {k} nearest other samples of {len(x)}: k must be from 1 to '
      f'{len(x) - 1}; give more samples or another k'
    )
  near = np.full((len(x), k), np.inf)
  for rows, columns, distances in tiles(x, x):
    if rows == columns:
      np.fill_diagonal(distances, np.inf)  # a row is no neighbour of itself
    merged = np.concatenate([near[rows], distances], axis=1)
    merged.partition(k - 1, axis=1)
    near[rows] = merged[:, :k]
  return near.max(axis=1)


def _radii(x, k):
  # The edge belongs to the ball, however the sums were rounded.
  return squared_radii(x, k) * (1 + 1e-9)


def tiles(x, y):
  """Yields (rows, columns, squared distances of x[rows] and y[columns]).

  x [n, d], y [m, d]: finite. rows and columns are slices that together go over
  all pairs; distances are float64, and 0 for rows that are equal alone.
  """
  centre = y.mean(axis=0, dtype=np.float64)  # less is lost by cancellation
  size = max(1, min(_TILE, 2**21 // x.shape[1]))  # of rows, at most 16 MiB
  for rows in _slices(len(x), size):
    a = x[rows] - centre
    for columns in _slices(len(y), size):
      distances, near = _squared_distances(a, y[columns] - centre)
      _measure(distances, x[rows], y[columns], np.nonzero(near))
      yield rows, columns, distances


def _slices(length, size):
  for start in range(0, length, size):
    yield slice(start, min(start + size, length))


def _squared_distances(a, b):
  """Returns squared distances by a product, and where that is not exact."""
  squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)
  distances = a @ (-2 * b).T
  distances += squares
  return distances, distances <= _NEAR * squares


def _measure(distances, x, y, pairs):
  """Replaces squared distances of pairs of rows by those of differences."""
  size = max(1, 2**21 // x.shape[1])
  for start in range(0, len(pairs[0]), size):
    i, j = (index[start : start + size] for index in pairs)
    off = x[i].astype(np.float64) - y[j]
    distances[i, j] = np.einsum('nd,nd->n', off, off)


def as_samples(**sets):
  """Returns named sets as NumPy arrays [n, d] of one width d, in order.

  Raises ValueError that names the set where it is no matrix, empty or not
  finite, and where the widths differ.
  """
  sets = {name: np.asarray(x) for name, x in sets.items()}
  for name, x in sets.items():
    if x.ndim != 2 or not x.size:
      raise ValueError(f'{name} must be [n, d] with n > 0, got {x.shape}')
    if not np.isfinite(x).all():
      broken = np.sum(~np.isfinite(x).all(axis=1))
      raise ValueError(f'{name}: NaN or infinity in {broken} of {len(x)} rows')
  if len({x.shape[1] for x in sets.values()}) > 1:
    widths = ', '.join(f'{name} {x.shape[1]}' for name, x in sets.items())
    raise ValueError(f'sets of different width: {widths}')
  return tuple(sets.values())
