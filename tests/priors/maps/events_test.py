import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.bottlenecks import Bottleneck
from lasers_jax.bottlenecks.coder import Coder
from lasers_jax.coding import SparseCode
from lasers_jax.errors import InputError
from lasers_jax.priors.maps.events import Events
from lasers_jax.priors.maps.pairs import MOST_PAIRS, ORDERS
from tests.bottlenecks.rows import (
  ROWS,
  SIDE,
  SPARSE,
  assert_same,
  build,
  drawn,
  run,
  start_row,
)

VQ = {'name': 'vq', 'learning': 'loss'}
ROUNDED = {'pursuit': 'rounded', 'S': 3}
MORE = {
  'rounded': {**SPARSE, **ROUNDED, 'coefficient_bits': 1},
  **{f'bits-{b}': {**SPARSE, 'coefficient_bits': b} for b in (1, 3, 6)},
  'bits-0': {**SPARSE, 'pursuit': 'rounded', 'coefficient_bits': 0},
  'apart': {**SPARSE, 'coefficient_bits': 12},
  'apart-rounded': {**SPARSE, **ROUNDED, 'coefficient_bits': 4, 'K': 1200},
  'residual-lasers': {'name': 'residual', 'depth': 2, 'inner': SPARSE},
  'product-rounded': {
    'name': 'product',
    'groups': 2,
    'inner': {**SPARSE, **ROUNDED, 'coefficient_bits': 2, 'D': 4},
  },
  'residual-product': {
    'name': 'residual',
    'depth': 2,
    'inner': {'name': 'product', 'groups': 2, 'inner': {**VQ, 'D': 4}},
  },
  'mqvae-lasers': {
    **ROWS['mqvae'],
    'inner': {**SPARSE, **ROUNDED, 'coefficient_bits': 1},
  },
  'mqvae-kept': {**ROWS['mqvae'], 'inner': ROWS['scq-kept']},
  'mqvae-lattice': {**ROWS['mqvae'], 'inner': ROWS['lattice']},
  'product-entropy': {
    'name': 'product',
    'groups': 2,
    'inner': {'name': 'entropy', 'D': 4},
  },
  'fsq-one-each': {'name': 'fsq', 'levels': (9, 8, 8, 8, 8, 8)},
  'bsq-32': {'name': 'bsq', 'bits': 32},
}
KINDS = {**ROWS, **MORE}
FLOAT = {**SPARSE, 'coefficient_bits': None}
CONTINUOUS = ['scq', 'lista', 'kl', 'none', 'wae', 'info_vae', 'rae']
DISCRETE = [x for x in KINDS if x not in [*CONTINUOUS, 'lasers-float']]


class Random(Coder):
  """Reads random codes, those of every site as they may be stored."""

  def __init__(self, seed=0):
    self.rng = np.random.default_rng(seed)

  def planes(self, name, codes, sites, sizes):
    return np.stack([self.rng.integers(0, x, sites) for x in sizes], axis=-1)

  def numbers(self, name, codes, sites, limit, count):
    return self.rng.integers(-limit, limit + 1, (*sites, count))

  def distinct(self, name, codes, sites, sizes):
    order = self.rng.permuted(
      np.tile(np.arange(sizes[0]), (*sites, 1)), axis=-1
    )
    return order[..., : len(sizes)]

  def pairs(self, name, codes, sites, shape):
    s, k, levels = shape
    atoms = np.sort(self.distinct(name, None, sites, [k] * s), axis=-1)
    stored = self.rng.integers(0, levels, atoms.shape)
    return atoms.astype(np.int32), stored.astype(np.int32)

  def subset(self, values, m, n):
    return np.sort(self.rng.permutation(n)[:m])

  def sets(self, name, codes, sites, size, count):
    raise NotImplementedError

  def table(self, name, values, n, size, rows=None, row_count=1):
    raise NotImplementedError


def drawn_codes(module, sites=(SIDE, SIDE), count=3):
  """Random codes of some images, without a model of them."""
  each = [module.transfer(Random(i), sites) for i in range(count)]
  return sites, jax.tree.map(lambda *x: np.stack(x), *each)


def first(codes):
  return jax.tree.map(lambda x: x[0], codes)


def assert_round_trip(events, codes):
  layout, found = events.layout, events.record_batch(codes)
  count = len(jax.tree.leaves(codes)[0])
  assert found.dtype == np.int32
  assert found.shape == (count, SIDE, SIDE, len(layout.sizes))
  assert np.all(found >= 0)
  assert np.all(found < np.array(layout.sizes))
  assert_same(events.play_batch(found), codes)
  one = events.record(first(codes))
  np.testing.assert_array_equal(one, found[0])
  assert_same(events.play(one), first(codes))
  return found


def assert_legal(layout, found):
  left = layout.left(found)
  for plane in range(len(layout.sizes)):
    legal = layout.legal(plane, found[..., :plane], left)
    if legal is not None:
      at = np.take_along_axis(np.asarray(legal), found[..., plane, None], -1)
      assert np.all(at), plane


@pytest.mark.parametrize('name', DISCRETE)
def test_codes_come_back_from_legal_events(name):
  module = build(**KINDS[name])
  sites, codes = drawn_codes(module)
  for order in 'atoms', 'random':
    events = Events.of(module, sites, order=order)
    assert events.layout.sites == (SIDE, SIDE)
    assert_legal(events.layout, assert_round_trip(events, codes))


WHOLE = 'lasers-rounded', 'scq-kept', 'mqvae', 'bsq'


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(x, marks=() if x in WHOLE else pytest.mark.slow)
    for x in DISCRETE
    if x in ROWS
  ],
)
def test_what_a_model_encodes_comes_back(name):
  case = start_row(name)
  codes = run(case.module, case.variables, case.z, method='encode')
  tables = case.apply(method='energies')
  events = Events.of(case.module, case.z.shape[1:3], tables)
  assert_legal(events.layout, assert_round_trip(events, jax.device_get(codes)))


def test_layouts_are_as_the_codes_are():
  def sizes(name):
    module = build(**KINDS[name])
    return Events.of(module, (SIDE, SIDE)).layout.sizes

  assert sizes('vq-loss') == (16,)
  assert sizes('fsq') == (20,)
  assert sizes('bsq') == (2,) * 20
  assert sizes('residual') == (16, 16)
  assert sizes('lattice') == (7,) * 8
  assert sizes('kl-rounded') == (8,) * 8
  assert sizes('lista-kept') == (16,) * 3 + (256,) * 3
  assert sizes('lasers') == (16 * 256,) * 2
  assert sizes('rounded') == (32, 32, 32)
  assert sizes('apart') == (16, 4096) * 2
  assert sizes('mqvae') == (2, 16)


CHANNELS = {
  'lattice': [range(8)],
  'entropy': [range(8)],
  'entropy-widest': [range(8)],
  'kl-rounded': [range(8)],
  'none-rounded': [range(8)],
  'mqvae-lattice': [range(1, 9)],
  'priced': [range(8)],
  'priced-extras': [range(13)],
  'priced-widest': [range(8)],
  'product-entropy': [range(4), range(4, 8)],
}


@pytest.mark.parametrize('name', CHANNELS)
def test_integers_come_in_falling_variance(name):
  sites, codes = drawn_codes(build(**KINDS[name]))
  stored = Events.of(build(**KINDS[name]), sites)
  assert stored.channels == tuple(map(tuple, CHANNELS[name]))
  values, rng = stored.record_batch(codes), np.random.default_rng(0)
  kept = values[..., 0] == 1 if stored.layout.kept else values[..., 0] >= 0
  for group in stored.channels:
    # Few values for some channels, and more for others; one is constant.
    ways = rng.permutation(len(group))[: len(group)] + 1
    values[..., group] %= np.minimum(ways, stored.layout.sizes[-1])
  # Sites that are not kept are 0 and would change the variance.
  values[kept] += np.array(stored.layout.sizes) - 1 - values[kept].max(axis=0)
  codes = stored.play_batch(values)
  planes = stored.by_variance(values)
  assert planes != stored.planes
  events = dataclasses.replace(stored, planes=planes)
  found = assert_round_trip(events, codes)
  assert_legal(events.layout, found)
  for group in stored.channels:
    assert sorted(planes[i] for i in group) == list(group)
    spread = found[kept][:, group].var(axis=0)
    assert np.all(np.diff(spread) <= 1e-9)
    assert spread[0] > spread[-1]
  assert events.by_variance(found) == planes


def test_all_other_planes_stay_where_they_are():
  for name in set(DISCRETE) - set(CHANNELS):
    events = Events.of(build(**KINDS[name]), (4, 4))
    assert not events.channels
    assert events.planes == tuple(range(len(events.layout.sizes)))


@pytest.mark.parametrize(
  'name', ['rounded', 'apart-rounded', 'residual-lasers']
)
def test_permuted_sets_give_the_same_events(name):
  module = build(**KINDS[name])
  sites, codes = drawn_codes(module)
  events = Events.of(module, sites, order='random')
  by_site = np.random.default_rng(3)

  def shuffled(code):
    order = by_site.permuted(np.argsort(code.atoms, axis=-1), axis=-1)
    return SparseCode(*(np.take_along_axis(x, order, -1) for x in code))

  other = jax.tree.map(
    shuffled, codes, is_leaf=lambda x: isinstance(x, SparseCode)
  )
  assert any(
    np.any(x != y)
    for x, y in zip(*map(jax.tree.leaves, (codes, other)), strict=True)
  )
  found = events.record_batch(other)
  np.testing.assert_array_equal(found, events.record_batch(codes))
  assert_same(events.play_batch(found), codes)


def test_the_strongest_come_first_and_ties_by_index():
  module = build(**SPARSE, coefficient_bits=1)
  tables = {'': np.array([[1, 2], [3, 2]] * 8, np.float32)}
  group = Events.of(module, (2, 2), tables).layout.sets[0]
  pairs = list(zip(group.atoms.tolist(), group.levels.tolist(), strict=True))
  odd, even = range(1, 16, 2), range(0, 16, 2)
  two = [(a, 1) for a in range(16)]
  assert pairs == [(a, 0) for a in odd] + two + [(a, 0) for a in even]


def test_where_levels_are_apart_the_largest_atoms_come_first():
  module = build(**SPARSE, coefficient_bits=12)
  sizes = np.random.default_rng(0).permutation(16).astype(np.float32)
  tables = {'': sizes[:, None] * np.linspace(0, 2, 4096, dtype='f4')[None]}
  assert sizes.size * 4096 > MOST_PAIRS
  group = Events.of(module, (2, 2), tables).layout.sets[0]
  np.testing.assert_array_equal(group.atoms, np.argsort(-sizes))


def test_orders_by_atoms_and_by_draw():
  module = build(**SPARSE, coefficient_bits=1)
  tables = {'': np.arange(32, dtype=np.float32).reshape(16, 2)}

  def order(*args, **options):
    group = Events.of(module, (2, 2), tables, *args, **options).layout.sets[0]
    return (2 * group.atoms + group.levels).tolist()

  assert order() == list(range(31, -1, -1))
  assert order('atoms') == list(range(32))
  assert sorted(order('random')) == list(range(32))
  assert order('random') == order('random', seed=0) != order('random', seed=1)


@pytest.mark.parametrize(
  'name, wrap, key',
  [
    ('lasers', None, ''),
    ('residual', 'residual', '1/'),
    ('mqvae', 'mqvae', 'kept/'),
  ],
)
def test_energies_are_those_of_coefficients(name, wrap, key):
  inner = {**SPARSE, 'coefficient_bits': 2}
  module = build(**{**ROWS[name], 'inner': inner} if wrap else inner)
  variables = drawn(module)
  part = variables['codebook']
  if wrap:
    part = part['copies_1' if wrap == 'residual' else 'inner']
  part = part['coefficients']
  part['sizes'] = jnp.arange(16.0)
  energies = module.apply(variables, method='energies')
  tables = {'': 1, 'residual': 2, 'mqvae': 1}[wrap or '']
  assert len(energies) == tables
  expected = np.arange(16.0)[:, None] * np.abs(part['levels'].values)[None]
  np.testing.assert_allclose(energies[key], expected, rtol=1e-6)
  # The walk asks for them by these names.
  events = Events.of(module, (SIDE, SIDE), energies)
  assert events.layout.sets[-1].atoms[-1] == 0
  assert events.layout.sets[-1].atoms[0] == 15


@pytest.mark.parametrize('name', [*CONTINUOUS, 'lasers-float'])
def test_codes_without_events_say_what_to_do(name):
  with pytest.raises(InputError) as e:
    Events.of(build(**ROWS[name]), (SIDE, SIDE))
  if name == 'lasers-float':
    assert str(e.value) == (
      'coefficients are stored as float32: set bottleneck.coefficient_bits'
    )
  else:
    kind = type(build(**ROWS[name])).__name__
    assert str(e.value) == (
      f'{kind} has a continuous code, which has no events: take the prior '
      "'flow', or train a bottleneck of a discrete code"
    )


def test_orders_that_are_not_there_are_refused():
  with pytest.raises(InputError, match="order is 'energie': did you mean"):
    Events.of(build(**SPARSE), (2, 2), order='energie')
  assert ORDERS == ('energy', 'atoms', 'random')


class Odd(Bottleneck):
  """Has a code of a way that the test says."""

  way: str = 'table'
  bits_per_site = 1.0

  def transfer(self, coder, sites, codes=None, name=''):
    if self.way == 'table':
      return coder.table('mine', codes, 4, 2)
    if self.way == 'sets':
      return coder.sets('mine', codes, sites, 4, 2)
    for side in 1, 2:
      coder.planes('mine', codes, (side, side), [4])


@pytest.mark.parametrize('way', ['table', 'sets', 'scales'])
def test_codes_that_are_not_of_one_map_say_so(way):
  line = {
    'scales': 'codes of maps of several sizes have no events',
  }.get(
    way,
    "the codes 'mine' have no events, since they are not of maps: write them "
    'in `transfer` by planes, distinct, numbers, pairs or subset',
  )
  with pytest.raises(InputError) as e:
    Events.of(Odd(way=way), (2, 2))
  assert str(e.value) == line


def test_sites_are_kept_by_the_outer_bottleneck_alone():
  module = build(name='residual', depth=2, inner=ROWS['mqvae'])
  with pytest.raises(InputError) as e:
    Events.of(module, (2, 2))
  assert str(e.value) == (
    'a bottleneck that keeps some sites has no events inside another one: make '
    'it the outer one (bottleneck.inner)'
  )
