"""What tells the means and sizes of integers, the same on every machine."""

import numpy as np
import pytest

from lasers_jax.codec import fit_scales, scales, symbols
from lasers_jax.codec.coder import Reader, Writer
from lasers_jax.codec.counters import Counter
from lasers_jax.codec.scales import ScalePredictor, Scales
from lasers_jax.codec.scan import scan
from lasers_jax.errors import InputError
from tests.codec.meter import Meter

pytest.importorskip('constriction')

LIMIT, PLANES = 5, 4
SIZES = [(1, 1), (1, 9), (8, 8), (13, 6)]


def draw_table(rng, shape):
  weights = rng.integers(1, 2**20, shape)
  weights[:, 0] += 2**26 - weights.sum(axis=1)
  return weights


def draw_scales(seed=0, planes=PLANES, largest=400, smooth=(1,), quiet=()):
  rng = np.random.default_rng(seed)
  shapes = scales.shapes(planes)
  found = [rng.integers(0, largest, shape) for shape in shapes]
  classes = np.ones(planes, np.int64)
  classes[list(smooth)], classes[list(quiet)] = scales.SMOOTH, scales.QUIET
  net = Scales(*found)
  return net._replace(
    classes=classes,
    offset=rng.integers(-200, 200, shapes.offset),
    spread=found[6] * (np.arange(planes) < len(smooth)),
    own=rng.integers(-100, 100, shapes.own),
    signed=rng.integers(-100, 100, shapes.signed),
    common=draw_table(rng, shapes.common),
    scale_bins=draw_table(rng, shapes.scale_bins),
  )


def arrays(fitted):
  return {f'a@{name}': x for name, x in fitted._asdict().items()}


def draw_codes(sites, seed=1, planes=PLANES, limit=LIMIT):
  rng = np.random.default_rng(seed)
  return rng.integers(-limit, limit + 1, (*sites, planes))


def row_of(scale, rest):
  """The row of a table, by comparisons and Python's integers."""
  edges = [
    2 ** (o - 12) * (1 + i / 4) * scales.UNIT
    for o in range(19)
    for i in range(4)
  ]
  rung = max(sum(edge <= scale for edge in edges) - 1, 0)
  part = sum(edge <= abs(rest) for edge in (6, 16, 32, 64, 96))
  return 6 * rung + part


class Exact:
  """Expects integers one by one, in Python's integers."""

  def __init__(self, net, codes, limit):
    self.net, self.limit = net, limit
    planes = codes.shape[2]
    self.order = [
      k for kind in range(3) for k in range(planes) if net.classes[k] == kind
    ]
    self.codes = codes.reshape(-1, planes)[:, self.order].T.tolist()
    self.scan = scan((codes.shape[:2],))
    self.off = {}
    self.first = [
      part.start
      for part, _ in scales.parts(net.classes)
      for _ in range(part.start, part.stop)
    ]

  def value(self, k, site):
    return 0 if site == self.scan.count else self.codes[k][site]

  def errors(self, cause, site):
    """How far off a plane was, or a group of planes together."""
    if cause < scales.SINGLE:
      return self.off[cause, site]
    first = scales.SINGLE + scales.GROUP * (cause - scales.SINGLE)
    members = range(first, first + scales.GROUP)
    return min(sum(self.off[k, site] for k in members), 31)

  def expect(self, k, step, i):
    net, site = self.net, int(step.sites[i])
    near = [] if step.near is None else step.near[:, i].tolist()
    first = self.first[k]  # what comes together says nothing of each other
    sides = self.scan.beside[:, site].tolist()
    mean, scale = int(net.offset[k]), int(net.least[step.kind, k])
    for j, other in enumerate(near):
      mean += int(net.own[step.kind, j, k]) * self.value(k, other)
      scale += int(net.near[step.kind, k]) * self.off.get((k, other), 0)
    if k < np.sum(net.classes == 0):
      a, b, c, d = (self.value(k, other) for other in near)
      scale += int(net.spread[k]) * min(abs(a - b) + abs(c - d), 127)
    for lead in range(min(first, len(net.signed))):
      for j, other in enumerate([site, *sides]):
        mean += int(net.signed[lead, j, k]) * self.value(lead, other)
    for cause in range(scales.causes(first)):
      one, two, three = (int(x) for x in net.sizes[cause, :, k])
      left, right, above, below = (self.errors(cause, x) for x in sides)
      scale += one * self.errors(cause, site)
      scale += two * (left + right) + three * (above + below)
    guess = max(-self.limit, min(self.limit, (mean + 128) // 256))
    rest = max(-128, min(128, mean - 256 * guess))
    self.off[k, site] = min(abs(self.value(k, site) - guess), 31)
    return guess, -1 if rest < 0 else 1, row_of(scale, rest)


def compare(net, codes, limit):
  """Holds what is expected of all integers against `Exact`."""
  order = scan((codes.shape[:2],))
  predictor, exact = ScalePredictor(net, limit, order), Exact(net, codes, limit)
  for planes, steps in predictor.parts():
    for step in steps:
      found = predictor.expect(planes, step)
      for p, k in enumerate(range(planes.start, planes.stop)):
        for i in range(len(step.sites)):
          one = tuple(int(x[p, i]) for x in found)
          assert one == exact.expect(k, step, i)
      some = np.array(exact.codes)[planes, step.sites]
      predictor.learn(planes, step, some, found)
    predictor.finish(planes)
  np.testing.assert_array_equal(
    predictor.codes, codes.reshape(-1, codes.shape[2])
  )


@pytest.mark.parametrize(
  'smooth, quiet', [((), ()), ((1,), (3,)), ((0, 2), (1, 3)), ((), range(4))]
)
def test_the_same_as_in_exact_integers(smooth, quiet):
  net = draw_scales(largest=40_000, smooth=smooth, quiet=quiet)
  compare(net, draw_codes((5, 6)), LIMIT)


def test_blocks_and_groups_of_planes_are_as_in_exact_integers(monkeypatch):
  for name, value in ('SINGLE', 4), ('GROUP', 4), ('BLOCK', 2), ('LEADING', 3):
    monkeypatch.setattr(scales, name, value)
  net = draw_scales(planes=14, largest=4_000, smooth=(2, 5), quiet=(1, 9, 12))
  assert net.sizes.shape[0] == 4 + 2
  compare(net, draw_codes((3, 4), planes=14), LIMIT)


def test_sums_of_means_are_exact_at_the_largest_weights():
  assert 5 * scales.LEADING * scales.STEEPEST * 127 < scales.EXACT


@pytest.mark.parametrize('planes', [4, 192, 378])
def test_sums_of_scales_are_exact_however_large_the_fitted_weights(planes):
  shapes = scales.shapes(planes)
  huge = {
    x: np.full(getattr(shapes, x), 1e3) for x in ('least', 'near', 'sizes')
  }
  sizes = fit_scales._as_integers(huge)['sizes']
  most = np.array([1, 2, 2])[:, None] * 31
  assert (sizes > 0).all()
  assert np.sum(sizes * most, axis=(0, 1)).max() < scales.EXACT


@pytest.mark.parametrize('sites', SIZES)
@pytest.mark.parametrize('limit', [1, LIMIT, 2_000])
def test_numbers_come_back(sites, limit):
  tables, codes = arrays(draw_scales()), draw_codes(sites, limit=limit)
  writer, meter = Writer(tables), Meter(tables)
  for coder in writer, meter:
    coder.numbers('a', codes, sites, limit, PLANES)
  reader = Reader(tables, writer.payload())
  found = reader.numbers('a', None, sites, limit, PLANES)
  reader.end()
  np.testing.assert_array_equal(found, codes)
  assert abs(8 * len(writer.payload()) - meter.bits) <= 0.003 * meter.bits + 64


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


def test_every_error_has_symbols_of_its_own():
  """For every scale and every side; all that the limit allows."""
  rows = np.arange(0, scales.ROWS, 7)
  values = np.arange(-40, 41)
  for guess in -40, 3:
    for sign in -1, 1:
      grid = np.broadcast_arrays(guess, sign, rows[:, None], values)
      *fields, codes = (x.ravel() for x in grid)
      expected = scales.Expected(*fields)
      high, low = symbols.split(expected, codes)
      assert (low >= 0).all()
      assert (low < 1 << symbols.dropped(expected)).all()
      few = scales.Expected(*(x[:80] for x in expected))
      assert symbols.dropped(few) is None
      np.testing.assert_array_equal(
        symbols.join(few, *symbols.split(few, codes[:80])), codes[:80]
      )
      np.testing.assert_array_equal(symbols.join(expected, high, low), codes)
      assert np.abs(high).max() <= 80
      found, others = symbols.exact(symbols.common(high))
      found[others], escapes = symbols.large(symbols.rare(high[others]))
      escaped = others[escapes]
      assert (abs(high[escaped]) > 16).all()
      found[escaped] = high[escaped]
      np.testing.assert_array_equal(found, high)


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
