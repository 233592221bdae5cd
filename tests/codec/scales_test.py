"""What tells how large integers are, the same on every machine."""

import math

import numpy as np
import pytest

from lasers_jax.codec import scales
from lasers_jax.codec.coder import Reader, Writer
from lasers_jax.codec.counters import Counter, MapCollector
from lasers_jax.codec.scales import KINDS, ScalePredictor, Scales, passes
from lasers_jax.codec.tables import weigh
from lasers_jax.errors import InputError
from tests.codec.meter import Meter

pytest.importorskip('constriction')

LIMIT, PLANES = 5, 4
SIZES = [(1, 1), (1, 9), (8, 8), (13, 6)]


def draw_scales(seed=0, largest=400):
  rng = np.random.default_rng(seed)
  of_kinds, square = (KINDS, PLANES), (PLANES, PLANES)
  return Scales(
    slope=rng.integers(-300, 300, of_kinds),
    offset=rng.integers(-900, 900, of_kinds),
    least=rng.integers(0, largest, of_kinds),
    near=rng.integers(0, largest, of_kinds),
    before=rng.integers(0, largest, square),
    beside=rng.integers(0, largest, square),
    scale_bins=weigh(rng.integers(0, 50, (58, 4 * LIMIT + 1))),
  )


def arrays(fitted):
  return {f'a@{name}': x for name, x in fitted._asdict().items()}


def draw_codes(sites, seed=1):
  rng = np.random.default_rng(seed)
  return rng.integers(-LIMIT, LIMIT + 1, (*sites, PLANES))


def around(one, i):
  """The spots that predict the i-th of a pass."""
  rows, columns = one.near
  known = np.flatnonzero(one.parts[:, i])
  return [(int(rows[j, i]), int(columns[j, i])) for j in known]


@pytest.mark.parametrize('sites', SIZES)
def test_every_site_comes_once_after_those_that_predict_it(sites):
  known = np.zeros(sites, int)
  for one in passes(*sites):
    for i, (y, x) in enumerate(zip(one.rows, one.columns, strict=True)):
      spots = around(one, i)
      assert all(known[spot] for spot in spots)
      assert bool(spots) == (one.kind > 0)
      if spots:  # they are all the nearest of that distance
        near = math.dist((y, x), spots[0])
        assert sorted(spots) == [
          spot for spot in np.ndindex(sites) if math.dist((y, x), spot) == near
        ]
    known[one.rows, one.columns] += 1
    assert one.kind < KINDS
  assert np.all(known == 1)


def expected(fitted, codes, plane, y, x):
  """What is expected of an integer, one by one and in Python's integers."""
  height, width, _ = codes.shape
  off = {}

  def inside(spot):
    return 0 <= spot[0] < height and 0 <= spot[1] < width

  for p in range(PLANES):
    for one in passes(height, width):
      spots = zip(one.rows.tolist(), one.columns.tolist(), strict=True)
      for i, spot in enumerate(spots):
        known = around(one, i)
        parts = 12 // max(len(known), 1)
        values = sum(int(codes[s][p]) for s in known) * parts
        near = sum(off[p, s] for s in known) * parts
        slope, offset, least, weight = (
          int(table[one.kind, p])
          for table in (fitted.slope, fitted.offset, fitted.least, fitted.near)
        )
        guess = (slope * values + 12 * (offset + 128)) // (12 * 256)
        guess = max(-LIMIT, min(LIMIT, guess))
        scale = least + weight * near // 12
        for q in range(p):
          scale += int(fitted.before[q, p]) * off[q, spot]
          for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            beside = spot[0] + dy, spot[1] + dx
            if inside(beside):
              scale += int(fitted.beside[q, p]) * off[q, beside]
        rung = sum(4096 * 2 ** (j / 4) < scale - 0.5 for j in range(-28, 29))
        if (p, spot) == (plane, (y, x)):
          return guess, rung
        off[p, spot] = min(abs(int(codes[spot][p]) - guess), 63)


@pytest.mark.parametrize('block', [1, 2, 16])
def test_the_same_as_in_exact_integers(block, monkeypatch):
  monkeypatch.setattr(scales, '_BLOCK', block)
  fitted, codes = draw_scales(largest=40_000), draw_codes((5, 6))
  predictor = ScalePredictor(fitted, LIMIT, codes.shape)
  for plane in range(PLANES):
    for one in passes(5, 6):
      guess, bins = predictor.expect(plane, one)
      for i, (y, x) in enumerate(zip(one.rows, one.columns, strict=True)):
        found = int(guess[i]), int(bins[i])
        assert found == expected(fitted, codes, plane, y, x)
      predictor.learn(plane, one, codes[one.rows, one.columns, plane], guess)
    predictor.finish(plane)
  np.testing.assert_array_equal(predictor.codes, codes)


def test_sums_are_exact_at_the_largest_weights():
  """Of 192 planes, all as far off as counts, in whatever order."""
  most = 192 * (4 + 1) * 63 * scales._LARGEST
  assert most < 2**53


@pytest.mark.parametrize('sites', SIZES)
def test_numbers_come_back(sites):
  tables, codes = arrays(draw_scales()), draw_codes(sites)
  writer, meter = Writer(tables), Meter(tables)
  for coder in writer, meter:
    coder.numbers('a', codes, sites, LIMIT, PLANES)
  reader = Reader(tables, writer.payload())
  found = reader.numbers('a', None, sites, LIMIT, PLANES)
  reader.end()
  np.testing.assert_array_equal(found, codes)
  assert abs(8 * len(writer.payload()) - meter.bits) <= 0.01 * meter.bits + 64


def test_without_scales_each_plane_has_a_table():
  codes, counter = draw_codes((4, 6)), Counter()
  counter.numbers('a', codes, (4, 6), LIMIT, PLANES)
  tables = counter.tables()
  assert sorted(tables) == [f'a{i}' for i in range(PLANES)]
  writer = Writer(tables)
  writer.numbers('a', codes, (4, 6), LIMIT, PLANES)
  reader = Reader(tables, writer.payload())
  found = reader.numbers('a', None, (4, 6), LIMIT, PLANES)
  np.testing.assert_array_equal(found, codes)


def test_no_payload_is_read_as_what_nobody_wrote():
  """Integers beyond the limit are refused, and nothing else goes wrong."""
  tables, rng = arrays(draw_scales()), np.random.default_rng(2)
  refused = 0
  for _ in range(30):
    reader = Reader(tables, rng.bytes(200))
    try:
      found = reader.numbers('a', None, (6, 6), LIMIT, PLANES)
      assert np.abs(found).max() <= LIMIT
    except InputError as error:
      assert 'its codes mean nothing' in str(error)
      refused += 1
  assert refused


@pytest.fixture(scope='module')
def maps():
  """Smooth maps whose planes are as lively as the first one is there."""
  rng = np.random.default_rng(0)
  found = []
  for _ in range(60):
    lively = np.exp(rng.normal(size=(2, 2))).repeat(4, 0).repeat(4, 1)
    noise = rng.laplace(size=(8, 8, PLANES)) * lively[..., None]
    noise[..., 0] += 12 * rng.normal()
    found.append(np.clip(np.rint(noise), -31, 31).astype(np.int64))
  return found


@pytest.fixture(scope='module')
def fitted(maps):
  return scales.fit(maps[:50], 31)


def bits_of(tables, maps):
  meter = Meter(tables)
  for codes in maps:
    meter.numbers('a', codes, codes.shape[:2], 31, PLANES)
  return meter.bits


def test_it_saves_what_tables_cannot(maps, fitted):
  counter = Counter()
  for codes in maps[:50]:
    counter.numbers('a', codes, (8, 8), 31, PLANES)
  plain, informed = (
    bits_of(tables, maps[50:]) for tables in (counter.tables(), arrays(fitted))
  )
  assert informed < 0.85 * plain


def test_predictions_are_least_squares(maps, fitted):
  """Of the first plane, which has a level of its own on each map."""
  kind = 2 * int(math.log2(8))  # the last, between direct neighbours
  one = passes(8, 8)[-1]
  assert one.kind == kind
  x, y = [], []
  for codes in maps[:50]:
    plane = codes[..., 0]
    for i, spot in enumerate(zip(one.rows, one.columns, strict=True)):
      x.append(np.mean([plane[s] for s in around(one, i)]))
      y.append(plane[spot])
  slope, offset = np.polyfit(x, y, 1)
  assert abs(fitted.slope[kind, 0] / 256 - slope) < 0.01
  assert abs(fitted.offset[kind, 0] / 256 - offset) < 0.05
  assert slope > 0.9


def test_it_is_fitted_to_maps_of_any_size(maps):
  collector = MapCollector()
  for codes in maps[:6], [x[:5] for x in maps[:6]]:
    for some in codes:
      collector.numbers('a', some, some.shape[:2], 31, PLANES)
  tables = collector.networks()
  assert tables.keys() == arrays(draw_scales()).keys()
  assert all(x.dtype == np.int64 for x in tables.values())
  assert all((tables[f'a@{x}'] >= 0).all() for x in ('least', 'near', 'before'))
