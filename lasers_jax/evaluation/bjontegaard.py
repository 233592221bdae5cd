"""Mean differences of rate between codecs at equal quality."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

FORMULA = (
  'mean of log rate over the common range of PSNR (G. Bjontegaard, VCEG-M33, '
  '2001), by piecewise cubic Hermite interpolation (PCHIP)'
)


def rate_difference(
  curve: Sequence[tuple[float, float]],
  other: Sequence[tuple[float, float]],
) -> float | None:
  """Returns how many more bits a codec takes than another at equal quality.

  exp(mean of log(rate) - log(other rate)) - 1, where the mean is over the range
  of quality that both curves have: -0.1 is 10 % less. G. Bjontegaard,
  "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001;
  log rate over quality is interpolated by piecewise cubics (PCHIP), as is usual
  where a curve has more than four points, and not fitted by one.

  Args:
    curve: positive rates and qualities, in any order and unit.
    other: of the other codec.

  Returns:
    None where a curve has a single point, more bits do not always have more
    quality, or there is no common range.
  """
  if min(len(curve), len(other)) < 2:
    return None
  curves = [np.array(sorted(points), float) for points in (curve, other)]
  if not all((np.diff(points[:, 1]) > 0).all() for points in curves):
    return None
  low = max(points[0, 1] for points in curves)
  high = min(points[-1, 1] for points in curves)
  if low >= high:
    return None
  own, theirs = (
    PchipInterpolator(points[:, 1], np.log(points[:, 0])).integrate(low, high)
    for points in curves
  )
  return float(np.expm1((own - theirs) / (high - low)))


def against(
  rows: Sequence[dict[str, Any]], others: Sequence[str]
) -> list[dict[str, Any]]:
  """Returns the rate of each codec of some rows beside those of others.

  Args:
    rows: of `rate_distortion.measure`: `codec`, `bits_per_pixel`, `psnr`.
    others: names of codecs.

  Returns:
    For each codec `codec`, `others` (the `rate_difference` to each, None where
    there is none) and `range`, its lowest and highest PSNR.
  """
  curves: dict[str, list[tuple[float, float]]] = {}
  for row in rows:
    point = row['bits_per_pixel'], row['psnr']['mean']
    curves.setdefault(row['codec'], []).append(point)
  found = []
  for name, points in curves.items():
    gains = {
      other: rate_difference(points, curves[other])
      for other in others
      if other in curves
    }
    quality = [y for _, y in points]
    ends = [min(quality), max(quality)]
    found.append({'codec': name, 'others': gains, 'range': ends})
  return found
