"""Rates at equal quality: by hand, by properties, and by another package."""

import math

import numpy as np
import pytest

from lasers_jax.evaluation.bjontegaard import against, rate_difference

FEW = [(0.125, 25.5), (0.25, 28.25), (0.5, 31.0), (1.0, 34.5)]
MANY = [(0.1, 25.0), (0.3, 28.0), (0.45, 30.5), (0.9, 33.0), (1.5, 36.0)]


def test_it_is_what_the_package_bjontegaard_finds():
  """Version 1.3.0, bd_rate(..., method='pchip') / 100."""
  found = rate_difference(FEW, MANY), rate_difference(MANY, FEW)
  np.testing.assert_allclose(
    found, (-0.1275912956768308, 0.14625174536264907), rtol=1e-9
  )


def test_a_case_by_hand():
  """log2 of the rates is q and 2 q: from 0 to 2 the mean difference is -1."""
  slow = [(2.0**q, q) for q in (-1, 0, 1, 2)]
  fast = [(4.0**q, q) for q in (0, 0.5, 2, 3)]
  assert rate_difference(slow, fast) == pytest.approx(-0.5)
  assert rate_difference(fast, slow) == pytest.approx(1.0)


@pytest.mark.parametrize('curve', [FEW, MANY])
@pytest.mark.parametrize('factor', [0.5, 1.0, 1.1, 7.0])
def test_rates_times_a_factor(curve, factor):
  other = [(factor * rate, quality) for rate, quality in reversed(curve)]
  assert rate_difference(other, curve) == pytest.approx(factor - 1, abs=1e-12)


def test_one_direction_undoes_the_other():
  there, back = rate_difference(FEW, MANY), rate_difference(MANY, FEW)
  assert math.log1p(there) == pytest.approx(-math.log1p(back))


def test_a_point_on_the_curve_of_a_line_changes_nothing():
  line = [(2.0**q, 3 * q) for q in range(4)]
  more = [*line, (2.0**1.5, 4.5)]
  assert rate_difference(more, FEW) is None  # no common range
  moved = [(1.2 * 2.0**q, 3 * q + 0.5) for q in range(4)]
  found = rate_difference(line, moved)
  assert found == pytest.approx(2 ** (1 / 6) / 1.2 - 1)
  assert rate_difference(more, moved) == pytest.approx(found)


@pytest.mark.parametrize(
  'curve',
  [
    [],
    [(0.5, 30.0)],
    [(0.5, 40.0), (0.6, 41.0)],
    [(0.5, 34.5), (0.6, 35.0)],
    [(0.25, 28.0), (0.5, 28.0), (1.0, 33.0)],
    [(0.25, 31.0), (0.5, 30.0), (1.0, 33.0)],
  ],
)
def test_where_there_is_none(curve):
  assert rate_difference(curve, FEW) is None
  assert rate_difference(FEW, curve) is None


def test_each_codec_beside_others():
  rows = [
    {'codec': name, 'bits_per_pixel': rate, 'psnr': {'mean': quality}}
    for name, curve in (('JPEG', FEW), ('ours', MANY), ('one', FEW[:1]))
    for rate, quality in curve
  ]
  jpeg, ours, one = against(rows, ['JPEG', 'AVIF'])
  assert jpeg == {'codec': 'JPEG', 'others': {'JPEG': 0}, 'range': [25.5, 34.5]}
  assert ours['others'] == {'JPEG': rate_difference(MANY, FEW)}
  assert one == {'codec': 'one', 'others': {'JPEG': None}, 'range': [25.5] * 2}
