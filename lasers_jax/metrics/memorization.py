"""Measures how far samples copy training rows, by nearest neighbours."""

from typing import NamedTuple

import numpy as np

from lasers_jax.errors import InputError
from lasers_jax.metrics.manifold import as_samples, squared_radii, tiles


def memorization(samples, train, held_out, seed=0):
  """Returns how near samples lie to training rows and to held-out rows.

  samples [n, d], train [t, d], held_out [h, d]: latents or flattened images,
  finite; train is what the prior was fitted on. More rows are nearer by
  number alone, so the larger of train and held_out is first subsampled, by the
  seed, to `rows`, the smaller's count. The values are
    train_mean, train_median, held_out_mean, held_out_median: of the distances
      of samples to the nearest of `rows` training and `rows` held-out rows.
    mean_ratio, median_ratio: train's over held_out's. 1: as far from both;
      under 1: nearer to training.
    fraction: of samples nearer to train than to held_out, ties counted half;
      0.5 is expected of new draws.
    reference_mean_ratio, reference_median_ratio, reference_fraction: the same
      of the held-out rows, each against the others: scores of new real data.
  A prior that copies shows there in only rows / t of its samples. Hence, to
  the nearest of all training rows, which also says how narrow the samples are,
    all_train_mean_ratio, all_train_median_ratio: the distance of samples over
      that of held-out rows; 1 is expected of new draws, 0 of copies.
    copying_z: the Mann-Whitney statistic of the two as a normal deviate, under
      about -3 where samples are nearer than new real data: C_T of Meehan et
      al. 2020 (arXiv 2004.05675) with a single cell.
  Raises InputError where h or t is under 2, and ValueError where the sets do
  not go together (`manifold.as_samples`). For many sets of samples, call
  `reference` once and `against` for each.
  """
  return against(samples, reference(train, held_out, seed))


class Reference(NamedTuple):
  """Real rows and their scores, computed before there are samples."""

  train: np.ndarray
  some: np.ndarray  # of train, as many as of held_out
  held_out: np.ndarray
  others: np.ndarray  # of held_out, as many as of train
  distances: np.ndarray  # of held_out to train
  scores: dict[str, float]  # those of the held-out rows


def reference(train, held_out, seed=0):
  """Returns the Reference of train and held_out; see `memorization`."""
  train, held_out = as_samples(train=train, held_out=held_out)
  some, others = _equally_many(train, held_out, seed)
  to_others = np.sqrt(squared_radii(others, 1))
  scores = _compare(nearest(others, some)[0], to_others)
  scores = {f'reference_{name}': value for name, value in scores.items()}
  distances = nearest(held_out, train)[0]
  return Reference(train, some, held_out, others, distances, scores)


def against(samples, real):
  """Returns the scores of `memorization` of samples and a Reference."""
  samples, _ = as_samples(samples=samples, train=real.train)
  to_train = nearest(samples, real.some)[0]
  to_held_out = nearest(samples, real.others)[0]
  to_all = nearest(samples, real.train)[0]
  return {
    'rows': len(real.some),
    'train_mean': float(to_train.mean()),
    'train_median': float(np.median(to_train)),
    'held_out_mean': float(to_held_out.mean()),
    'held_out_median': float(np.median(to_held_out)),
    **_compare(to_train, to_held_out),
    **real.scores,
    'all_train_mean_ratio': _ratio(to_all.mean(), real.distances.mean()),
    'all_train_median_ratio': _ratio(
      np.median(to_all), np.median(real.distances)
    ),
    'copying_z': _mann_whitney_z(to_all, real.distances),
  }


def nearest(x, y):
  """Returns distance and index of the nearest row of y for each of x, [n] each.

  x [n, d], y [m, d]: finite. Float64, in tiles; of equal rows of y the first.
  Raises ValueError where the sets do not go together (`manifold.as_samples`).
  """
  x, y = as_samples(x=x, y=y)
  squared, index = np.full(len(x), np.inf), np.zeros(len(x), int)
  for rows, columns, distances in tiles(x, y):
    at = distances.argmin(axis=1)
    found = distances[np.arange(len(at)), at]
    nearer = found < squared[rows]
    index[rows] = np.where(nearer, columns.start + at, index[rows])
    squared[rows] = np.where(nearer, found, squared[rows])
  return np.sqrt(squared), index


def _equally_many(train, held_out, seed):
  rng, rows = np.random.default_rng(seed), min(len(train), len(held_out))
  if rows < 2:
    raise InputError(
      'memorization needs 2 training and 2 held-out rows or more, got '
      f'{len(train)} and {len(held_out)}'
    )
  return (
    x if len(x) == rows else rng.choice(x, rows, replace=False)
    for x in (train, held_out)
  )


def _compare(near, far):
  ties = near == far
  return {
    'mean_ratio': _ratio(near.mean(), far.mean()),
    'median_ratio': _ratio(np.median(near), np.median(far)),
    'fraction': float(np.mean((near < far) + ties / 2)),
  }


def _ratio(a, b):
  if b == 0:
    return 1.0 if a == 0 else float('inf')
  return float(a / b)


def _mann_whitney_z(a, b):
  """Returns the z of pairs in which a is larger, ties half; 0 if alike."""
  b = np.sort(b)
  larger = np.searchsorted(b, a, 'left') + np.searchsorted(b, a, 'right')
  pairs = len(a) * len(b)
  deviation = np.sqrt(pairs * (len(a) + len(b) + 1) / 12)
  return float((larger.sum() - pairs) / 2 / deviation)
