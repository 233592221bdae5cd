"""Prices of integers, against files and against probabilities."""

import numpy as np
import pytest

from lasers_jax.codec import prices
from lasers_jax.codec.coder import Writer
from lasers_jax.codec.counters import Counter
from tests.codec.meter import Meter
from tests.codec.scales_test import (
  LIMIT,
  PLANES,
  arrays,
  draw_codes,
  draw_scales,
)

pytest.importorskip('constriction')

SITES = 13, 9


@pytest.mark.parametrize('limit', [LIMIT, 60])
@pytest.mark.parametrize('smooth', [(), (1, 3)])
def test_they_are_the_lengths_of_files(limit, smooth):
  tables = arrays(draw_scales(smooth=smooth))
  codes = draw_codes(SITES, limit=limit)
  writer, meter = Writer(tables), Meter(tables)
  for coder in writer, meter:
    coder.numbers('a', codes, SITES, limit, PLANES)
  bits = prices(tables, codes, limit, codes, 'a')
  assert bits.dtype == np.float32
  assert bits.shape == codes.shape
  assert float(bits.sum()) == pytest.approx(meter.bits, rel=1e-5)
  assert abs(8 * len(writer.payload()) - bits.sum()) <= 0.003 * bits.sum() + 64


def test_each_is_what_changing_one_integer_costs():
  """Of the last to come, on which no other depends."""
  tables, codes = arrays(draw_scales()), draw_codes(SITES)
  values = np.arange(-LIMIT, LIMIT + 1)[:, None, None, None]
  values = np.broadcast_to(values, (len(values), *codes.shape))
  bits = prices(tables, codes, LIMIT, values, 'a')
  assert bits.shape == values.shape
  last = 12, 7, PLANES - 1
  totals = []
  for value in range(-LIMIT, LIMIT + 1):
    changed = codes.copy()
    changed[last] = value
    meter = Meter(tables)
    meter.numbers('a', changed, SITES, LIMIT, PLANES)
    totals.append(meter.bits)
  found = bits[(slice(None), *last)]
  np.testing.assert_allclose(
    found - found[0], np.array(totals) - totals[0], atol=1e-3
  )
  assert np.ptp(found) > 1


def test_probabilities_of_all_values_add_up_to_no_more_than_one():
  tables, codes = arrays(draw_scales()), draw_codes(SITES)
  values = np.arange(-LIMIT, LIMIT + 1)[:, None, None, None]
  values = np.broadcast_to(values, (len(values), *codes.shape))
  total = np.sum(2.0 ** -prices(tables, codes, LIMIT, values, 'a'), axis=0)
  assert total.max() <= 1 + 1e-5
  assert total.min() > 0.1  # errors go beyond the limit


def test_without_contexts_they_are_those_of_the_tables():
  codes, counter = draw_codes(SITES), Counter()
  counter.numbers('a', codes, SITES, LIMIT, PLANES)
  meter = Meter(counter.tables())
  meter.numbers('a', codes, SITES, LIMIT, PLANES)
  bits = prices(counter.tables(), codes, LIMIT, codes, 'a')
  assert float(bits.sum()) == pytest.approx(meter.bits, rel=1e-5)
