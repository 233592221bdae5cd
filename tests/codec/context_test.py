"""A network that tells what is probable, the same on every machine."""

import math

import numpy as np
import pytest

from lasers_jax.codec import context
from lasers_jax.codec.coder import Reader, Writer
from lasers_jax.codec.context import (
  NEIGHBOURS,
  AutoregressiveMap,
  Kind,
  Network,
)
from lasers_jax.codec.counters import Counter, MapCollector
from lasers_jax.codec.tables import ladder
from lasers_jax.errors import InputError
from tests.codec.meter import Meter

pytest.importorskip('constriction')

PLANES = Kind((7, 1, 5))
SETS = [Kind((9,), 1), Kind((9,), 3), Kind((9,), 9)]
KINDS = [PLANES, *SETS]


def draw_network(kind, seed=0, width=6):
  rng = np.random.default_rng(seed)
  n = sum(kind.sizes)
  shapes = Network(
    (4, n + 1, width), (n, width), (len(kind.sizes), width), (width, n), (n,)
  )
  return Network(*(rng.integers(-400, 400, shape) for shape in shapes))


def arrays(network):
  return {f'a@{name}': x for name, x in network._asdict().items()}


def draw_map(kind, sites, seed=1):
  rng = np.random.default_rng(seed)
  if kind.count:
    drawn = rng.random((*sites, kind.sizes[0])).argsort(axis=-1)
    return np.sort(drawn[..., : kind.count], axis=-1)
  return np.stack([rng.integers(n, size=sites) for n in kind.sizes], axis=-1)


def lead(coder, kind, sites, codes=None):
  if kind.count:
    return coder.sets('a', codes, sites, kind.sizes[0], kind.count)
  return coder.planes('a', codes, sites, kind.sizes)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('sites', [(1, 1), (1, 6), (5, 1), (4, 7)])
def test_maps_come_back(kind, sites):
  tables, codes = arrays(draw_network(kind)), draw_map(kind, sites)
  writer, meter = Writer(tables), Meter(tables)
  for coder in writer, meter:
    np.testing.assert_array_equal(lead(coder, kind, sites, codes), codes)
  reader = Reader(tables, writer.payload())
  found = lead(reader, kind, sites)
  np.testing.assert_array_equal(found, codes)
  reader.end()
  assert meter.bits - 1 <= 8 * len(writer.payload()) <= meter.bits + 64


@pytest.mark.parametrize('sites', [(1, 1), (1, 5), (6, 1), (5, 3), (3, 8)])
def test_waves_meet_each_site_once_after_its_neighbours(sites):
  maps = AutoregressiveMap(draw_network(PLANES), PLANES, sites)
  met = set()
  for rows, columns in maps.waves():
    wave = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert not wave & met
    for y, x in wave:
      around = {(y + dy, x + dx) for dy, dx in NEIGHBOURS}
      inside = {(i, j) for i, j in around if i >= 0 and 0 <= j < sites[1]}
      assert inside <= met
    met |= wave
  assert met == {(y, x) for y in range(sites[0]) for x in range(sites[1])}


def exact_weights(network, kind, codes, y, x, plane):
  """By Python's integers, without limits: the formula of the network."""
  around, before, hidden, out, bias = (a.tolist() for a in network)
  height, width, planes = codes.shape
  starts = kind.starts.tolist()
  h = list(hidden[plane])
  for i, (dy, dx) in enumerate(NEIGHBOURS):
    inside = 0 <= y + dy < height and 0 <= x + dx < width
    for p in range(planes):
      seen = codes[y + dy, x + dx, p] + starts[p] if inside else -1
      h = [a + b for a, b in zip(h, around[i][seen], strict=True)]
  for p in range(plane):
    seen = before[codes[y, x, p] + starts[p]]
    h = [a + b for a, b in zip(h, seen, strict=True)]
  h = [min(max(a, 0), 16 * 256) for a in h]
  logits = [
    (sum(a * row[k] for a, row in zip(h, out, strict=True)) + bias[k]) // 256
    for k in range(*kind.symbols(plane).indices(sum(kind.sizes)))
  ]
  powers = [
    int(2**22 * 2 ** (-((max(logits) - a) % 256) / 256))
    >> (max(logits) - a) // 256
    for a in logits
  ]
  even = sum(powers) // (1024 * len(powers)) + 1
  return [a + even for a in powers]


@pytest.mark.parametrize('kind', KINDS)
def test_weights_are_those_of_exact_integers(kind):
  network, codes = draw_network(kind, 5), draw_map(kind, (3, 4))
  maps = AutoregressiveMap(network, kind, (3, 4))
  for where in maps.waves():
    for plane in range(len(kind.sizes)):
      found = maps.weights(where, plane)
      for i, (y, x) in enumerate(zip(*where, strict=True)):
        expected = exact_weights(network, kind, codes, y, x, plane)
        np.testing.assert_array_equal(found[i], expected)
      maps.learn(where, plane, codes[(*where, plane)])
    for plane in range(len(kind.sizes), kind.planes):
      maps.learn(where, plane, codes[(*where, plane)])


def test_the_order_of_additions_changes_nothing():
  """Even of the largest numbers there may be: nothing is rounded."""
  rng = np.random.default_rng(0)
  kind, width = Kind((50,)), 48
  large = Network(
    *(
      rng.choice([-(2**15), 2**15 - 1, 12345], shape)
      for shape in ((4, 51, width), (50, width), (1, width), (width, 50), (50,))
    )
  )
  order = rng.permutation(width)
  other = Network(
    large.around[..., order],
    large.before[:, order],
    large.hidden[:, order],
    large.out[order],
    large.bias,
  )
  codes = draw_map(kind, (6, 6))
  payloads = []
  for network in large, other:
    writer = Writer(arrays(network))
    lead(writer, kind, (6, 6), codes)
    payloads.append(writer.payload())
  assert payloads[0] == payloads[1]


def draw_dependent(rng, height=10, width=10, k=8):
  """Each code is one of three, which its neighbours name."""
  codes = np.zeros((height, width, 2), int)
  for y in range(height):
    for x in range(width):
      left = codes[y, x - 1, 0] if x else 0
      above = codes[y - 1, x, 0] if y else 0
      codes[y, x, 0] = (left + above + rng.integers(3)) % k
      codes[y, x, 1] = (codes[y, x, 0] + rng.integers(2)) % 4
  return codes


@pytest.fixture(scope='module')
def learned():
  """Tables with and without a network, of maps that depend on neighbours."""
  rng = np.random.default_rng(0)
  counter, collector = Counter(), MapCollector()
  for _ in range(60):
    codes = draw_dependent(rng)
    for coder in counter, collector:
      coder.planes('a', codes, (10, 10), (8, 4))
  plain = counter.tables()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(context, 'STEPS', 1500)
    return plain, plain | collector.networks()


def test_what_neighbours_tell_is_saved(learned):
  codes = draw_dependent(np.random.default_rng(9))
  costs = []
  for tables in learned:
    meter = Meter(tables)
    meter.planes('a', codes, (10, 10), (8, 4))
    costs.append(meter.bits / 100)
  assert costs[0] > 4.9  # 3 and 2 bits
  assert math.log2(3) + 1 < costs[1] < 1.1 * (math.log2(3) + 1)


def test_rounding_the_network_costs_nothing(learned, monkeypatch):
  kept = {}
  as_integers = context._as_integers
  monkeypatch.setattr(
    context, '_as_integers', lambda x: kept.update(x=x) or as_integers(x)
  )
  rng = np.random.default_rng(1)
  maps, kind = [draw_dependent(rng) for _ in range(20)], Kind((8, 4))
  monkeypatch.setattr(context, 'STEPS', 300)
  network = context.fit(maps, kind)
  meter = Meter(arrays(network))
  for codes in maps:
    meter.planes('a', codes, (10, 10), (8, 4))
  pairs = [context._neighbourhoods(codes, kind) for codes in maps]
  around, own = (np.concatenate(x) for x in zip(*pairs, strict=True))
  floats = context.bits(kept['x'], kind, around, own)
  assert meter.bits / 2000 == pytest.approx(float(floats), rel=5e-3)


@pytest.mark.parametrize('second', [2, 8])  # below the first; none left above
def test_a_set_that_no_writer_writes_shows(second):
  kind, network = SETS[1], draw_network(SETS[1])
  writer = Writer(arrays(network))
  where = np.array([0]), np.array([0])
  weights = AutoregressiveMap(network, kind, (1, 1)).weights(where, 0)
  for shares, last, member in zip(
    ladder(weights, 3), (-1, 5), (5, second), strict=False
  ):
    above = np.where(np.arange(9)[None] > last, shares, 0)
    writer._each(np.array([member]), above)
  reader = Reader(arrays(network), writer.payload())
  with pytest.raises(InputError, match='its codes mean nothing'):
    lead(reader, kind, (1, 1))
