import itertools
import math
import sys

import numpy as np
import pytest

from lasers_jax.codec.coder import Reader, Writer
from lasers_jax.codec.counters import Counter
from lasers_jax.codec.tables import weigh
from lasers_jax.errors import InputError
from tests.codec.meter import Meter

pytest.importorskip('constriction')

RNG = np.random.default_rng(0)
SKEWED = weigh(RNG.geometric(0.3, (3, 12)) ** 4)


def draw(table, rows):
  shares = table / table.sum(axis=1, keepdims=True)
  return np.array([RNG.choice(len(shares[r]), p=shares[r]) for r in rows])


def test_integers_come_back_by_their_rows():
  rows = RNG.integers(0, 3, 500)
  values = draw(SKEWED, rows)
  writer, meter = Writer({'a': SKEWED}), Meter({'a': SKEWED})
  for coder in writer, meter:
    coder.table('a', values, 500, 12, rows, 3)
  reader = Reader({'a': SKEWED}, writer.payload())
  found = reader.table('a', None, 500, 12, rows, 3)
  reader.end()
  np.testing.assert_array_equal(found, values)
  shares = SKEWED / SKEWED.sum(axis=1, keepdims=True)
  bits = -np.log2(shares[rows, values]).sum()
  assert meter.bits == pytest.approx(bits)
  assert bits <= 8 * len(writer.payload()) <= bits + 64


@pytest.mark.parametrize('count', [1, 3, 12])
def test_sets_come_back_and_order_costs_nothing(count):
  sets = np.sort([RNG.permutation(12)[:count] for _ in range(200)], axis=1)
  even = {'a': np.full((1, 12), 7)}
  writer, meter = Writer(even), Meter(even)
  for coder in writer, meter:
    coder.sets('a', sets[None], (1, 200), 12, count)
  reader = Reader(even, writer.payload())
  found = reader.sets('a', None, (1, 200), 12, count)
  np.testing.assert_array_equal(found, sets[None])
  reader.end()
  assert meter.bits == pytest.approx(200 * math.log2(math.comb(12, count)))
  assert 8 * len(writer.payload()) <= meter.bits + 64


def test_nothing_takes_no_bits():
  writer = Writer({'a': SKEWED})
  empty = np.zeros(0, int)
  assert len(writer.table('a', empty, 0, 12, empty, 3)) == 0
  assert writer.sets('a', np.zeros((0, 3, 4), int), (0, 3), 12, 4).size == 0
  assert writer.payload() == b''


def test_a_set_has_the_product_of_its_weights():
  weights = {'a': SKEWED[:1]}
  products = []
  meters = []
  for chosen in itertools.combinations(range(12), 3):
    products.append(math.prod(int(w) for w in SKEWED[0, list(chosen)]))
    meter = Meter(weights)
    meter.sets('a', np.array([[chosen]]), (1, 1), 12, 3)
    meters.append(2**-meter.bits)
  expected = np.array(products, float) / sum(products)
  np.testing.assert_allclose(meters, expected, rtol=1e-5)
  assert sum(meters) == pytest.approx(1)


@pytest.mark.parametrize('m, n', [(1, 1), (3, 16), (16, 16), (20, 64)])
def test_subsets_come_back_at_the_bits_of_a_choice(m, n):
  chosen = np.sort(RNG.permutation(n)[:m])
  writer, meter = Writer({}), Meter({})
  for coder in writer, meter:
    coder.subset(chosen, m, n)
  reader = Reader({}, writer.payload())
  np.testing.assert_array_equal(reader.subset(None, m, n), chosen)
  reader.end()
  assert meter.bits == pytest.approx(math.log2(math.comb(n, m)))


def test_a_counter_counts():
  counter = Counter()
  counter.table('a', np.array([0, 2, 2]), 3, 4, np.array([0, 1, 1]), 2)
  counter.sets('b', np.array([[[0, 1], [1, 4]]]), (1, 2), 5, 2)
  np.testing.assert_array_equal(
    counter.counts['a'], [[1, 0, 0, 0], [0, 0, 2, 0]]
  )
  np.testing.assert_array_equal(counter.counts['b'], [[1, 2, 0, 0, 1]])


def test_one_symbol_takes_no_bits():
  writer = Writer({'a': np.array([[5]])})
  np.testing.assert_array_equal(
    writer.table('a', np.zeros(9, int), 9, 1), np.zeros(9)
  )
  assert writer.payload() == b''


def test_more_than_was_to_be_read_shows():
  writer = Writer({'a': SKEWED})
  values = draw(SKEWED, np.zeros(100, int))
  writer.table('a', values, 100, 12)
  reader = Reader({'a': SKEWED}, writer.payload())
  reader.table('a', None, 10, 12)
  with pytest.raises(InputError, match='go on past their end'):
    reader.end()


def test_what_no_writer_writes_shows():
  with pytest.raises(InputError, match='cut short'):
    Reader({}, b'abc')
  reader = Reader({'a': SKEWED}, b'\xff' * 40)
  with pytest.raises(InputError, match='mean nothing'):
    reader.table('a', None, 1000, 12)


@pytest.mark.parametrize('start', [Writer, lambda t: Reader(t, b'')])
def test_without_the_package_of_the_range_coder_one_line_says_so(
  start, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'constriction', None)
  with pytest.raises(InputError, match='needs the package constriction') as e:
    start({})
  assert '\n' not in str(e.value)
