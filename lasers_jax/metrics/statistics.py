"""Computes means over images and their intervals, in float64."""

import numpy as np
from scipy.special import ndtri, stdtrit

MINIMUM_VALUES = 10  # of which there is an interval


def bootstrap_interval(values, seed=0, draws=1000):
  """Returns (low, high), the 95 % bootstrap interval of the mean, or None.

  values: one number per image, in any order (the order does not matter);
  float64; memory for one draw at a time. A function of the values and the seed
  alone. Percentiles, which lie too near to the mean of n values, are moved away
  by (n / (n - 1))^(1/2) t / z, with the 97.5 % points of Student's t with n - 1
  degrees of freedom and of the normal distribution (after Hesterberg, The
  American Statistician 2015). None where there are fewer than 10 values, which
  say too little of how they are distributed, or one is NaN or infinite. Raises
  ValueError where there is none at all.
  """
  values = _sorted_values(values)
  size, mean = len(values), values.mean()
  if size < MINIMUM_VALUES or not np.isfinite(values).all():
    return None
  rng = np.random.default_rng(seed)
  means = [values[rng.integers(size, size=size)].mean() for _ in range(draws)]
  wider = np.sqrt(size / (size - 1)) * stdtrit(size - 1, 0.975) / ndtri(0.975)
  low, high = mean + wider * (np.percentile(means, (2.5, 97.5)) - mean)
  return float(low), float(high)


def summarize(values):
  """Returns the mean of per-image values, its 95 % interval and their count.

  The keys are 'mean', 'low', 'high' (float) and 'count' (int); low and high are
  None where there is no interval. Raises ValueError where there is no value.
  """
  low, high = bootstrap_interval(values) or (None, None)
  values = _sorted_values(values)
  return {
    'mean': float(values.mean()),
    'low': low,
    'high': high,
    'count': len(values),
  }


def describe_interval(summary, describe='{:.2f}'.format):
  """Returns 'LOW to HIGH' of a summary; '' without an interval."""
  if summary['low'] is None:
    return ''
  return f'{describe(summary["low"])} to {describe(summary["high"])}'


def describe_mean(summary):
  """Returns 'MEAN (LOW to HIGH)' of a summary; 'MEAN' without an interval."""
  interval = describe_interval(summary)
  return f'{summary["mean"]:.2f}' + (f' ({interval})' if interval else '')


def _sorted_values(values):
  # Sorted, so that sums do not depend on which process held which image.
  values = np.sort(np.asarray(values, np.float64), axis=None)
  if not values.size:
    raise ValueError('no values to average: the split is empty')
  return values
