"""Computes the Fréchet distance of two sets of features, in float64.

It is called FID where the features are those of Inception-2015, and by the
name of its network everywhere else.
"""

import numpy as np


class FeatureStatistics:
  """Count, mean and covariance of features that come in batches.

  Any batches in any order, and any grouping by `merge`, give the same numbers
  to float64 rounding, also where the mean is large beside the deviations.
  """

  def __init__(self):
    self.count = 0
    self._mean = None  # [d]
    self._scatter = None  # [d, d], sum of outer products about the mean

  def add(self, features):
    """Takes features [n, d] in; n may be 0.

    Raises ValueError where the width d is not that of the features before.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
      raise ValueError(f'features must be [n, d], got shape {features.shape}')
    if not len(features):
      return
    mean = features.mean(axis=0)
    centred = features - mean
    self._combine(len(features), mean, centred.T @ centred)

  def merge(self, other):
    """Takes in the features of another FeatureStatistics, which stays as it is.

    Raises ValueError where the widths differ.
    """
    if other.count:
      self._combine(other.count, other._mean, other._scatter)

  @property
  def mean(self):
    """Returns the mean, [d]; raises ValueError where nothing was added."""
    self._need(1)
    return self._mean.copy()

  @property
  def covariance(self):
    """Returns the covariance with n - 1, [d, d]; ValueError where n < 2."""
    self._need(2)
    return self._scatter / (self.count - 1)

  def _need(self, minimum):
    if self.count < minimum:
      raise ValueError(
        f'statistics of {self.count} samples: at least {minimum} are needed'
      )

  def _combine(self, count, mean, scatter):
    """Updates by pairs, after Chan, Golub and LeVeque (1979)."""
    if not self.count:
      self.count, self._mean, self._scatter = count, mean, scatter
      return
    if len(mean) != len(self._mean):
      raise ValueError(f'features of width {len(mean)} and {len(self._mean)}')
    total = self.count + count
    step = mean - self._mean
    between = np.outer(step, step) * (self.count * count / total)
    # New arrays, never in place: `merge` shares them.
    self._scatter = self._scatter + scatter + between
    self._mean = self._mean + step * (count / total)
    self.count = total


def frechet_distance(a, b):
  """Returns |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), at least 0.

  a, b: FeatureStatistics of one width with 2 samples or more each; else raises
  ValueError. The distance of two Gaussians of these means and covariances
  (Dowson and Landau 1982, as used by Heusel et al. 2017). Covariances may be
  singular, as they are where the samples are no more than the width. Finite
  features give a finite number; a NaN among them shows as NaN.
  """
  step, s1, s2 = _difference(a, b), a.covariance, b.covariance
  if not np.isfinite(step).all():
    return float('nan')
  # S1 S2 has the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2): real, and
  # negative by rounding alone.
  root = _square_root(s1)
  eigenvalues = np.linalg.eigvalsh(root @ s2 @ root)
  shared = np.sqrt(np.maximum(eigenvalues, 0)).sum()
  distance = step @ step + np.trace(s1) + np.trace(s2) - 2 * shared
  return max(float(distance), 0.0)


def _difference(a, b):
  if a.mean.shape != b.mean.shape:
    raise ValueError(f'features of width {len(a.mean)} and {len(b.mean)}')
  return a.mean - b.mean


def _square_root(symmetric):
  values, vectors = np.linalg.eigh(symmetric)
  return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
