import jax
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.priors.maps.events import MOST_PAIRS, ORDERS, Events
from tests.bottlenecks.rows import (
  ROWS,
  SIDE,
  SPARSE,
  assert_same,
  build,
  run,
  start,
  start_row,
)

VQ = {'name': 'vq', 'learning': 'loss'}
ROUNDED = {'pursuit': 'rounded', 'residual_norm': 1.0, 'S': 3}
MORE = {
  'counts': {**SPARSE, **ROUNDED, 'coefficient_bits': 1},
  'counts-patch': {**SPARSE, **ROUNDED, 'coefficient_bits': 2, 'patch': 2, 'D': 2},
  **{f'bits-{b}': {**SPARSE, 'coefficient_bits': b} for b in (1, 3, 6)},
  'bits-0': {**SPARSE, 'pursuit': 'rounded', 'coefficient_bits': 0},
  'apart': {**SPARSE, 'coefficient_bits': 12},
  'apart-counts': {**SPARSE, **ROUNDED, 'coefficient_bits': 4, 'K': 1200},
  'residual-lasers': {'name': 'residual', 'depth': 2, 'inner': SPARSE},
  'product-counts': {
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
  'fsq-one-each': {'name': 'fsq', 'levels': (9, 8, 8, 8, 8, 8)},
  'bsq-32': {'name': 'bsq', 'bits': 32},
}
KINDS = {**ROWS, **MORE}
FLOAT = {**SPARSE, 'coefficient_bits': None}
CONTINUOUS = ['scq', 'lista', 'kl', 'none', 'wae', 'info_vae', 'rae']
DISCRETE = [x for x in KINDS if x not in [*CONTINUOUS, 'lasers-float']]


def case_of(name):
  return start_row(name) if name in ROWS else start(build(**MORE[name]))


def prepare(name, order='energy'):
  case = case_of(name)
  codes = run(case.module, case.variables, case.z, method='encode')
  tables = case.apply(method='energies')
  events = Events.of(case.module, case.z.shape[1:3], tables, order)
  return events, jax.device_get(codes)


def first(codes):
  return jax.tree.map(lambda x: x[0], codes)


@pytest.mark.parametrize('name', DISCRETE)
def test_codes_come_back_from_events(name):
  events, codes = prepare(name)
  layout = events.layout
  found = events.record_batch(codes)
  assert found.dtype == np.int32
  assert found.shape == (8, SIDE, SIDE, len(layout.sizes))
  assert np.all(found >= 0)
  assert np.all(found < np.array(layout.sizes))
  assert_same(events.play_batch(found), codes)
  one = events.record(first(codes))
  np.testing.assert_array_equal(one, found[0])
  assert_same(events.play(one), first(codes))


@pytest.mark.parametrize('name', DISCRETE)
def test_recorded_events_are_legal(name):
  events, codes = prepare(name)
  found, layout = events.record_batch(codes), events.layout
  left = layout.left(found)
  for plane in range(len(layout.sizes)):
    legal = layout.legal(plane, found[..., :plane], left)
    if legal is not None:
      at = np.take_along_axis(np.asarray(legal), found[..., plane, None], -1)
      assert np.all(at)
