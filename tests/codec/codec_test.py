"""Files of every discrete code: there and back, no longer than they must be."""

import jax
import numpy as np
import pytest

from lasers_jax.codec import (
  Codec,
  container,
  context,
  fit_scales,
  fit_tables,
)
from lasers_jax.errors import InputError
from tests.bottlenecks.rows import ROWS, assert_same, normal, start_row
from tests.codec.meter import Meter

pytestmark = pytest.mark.slow

pytest.importorskip('constriction')

CONTINUOUS = (
  'lasers-float',
  'scq',
  'lista',
  'kl',
  'none',
  'wae',
  'info_vae',
  'rae',
)
DISCRETE = [row for row in ROWS if row not in CONTINUOUS]
F = 4  # pixels of a site


def maps(case, shapes, seed=1):
  """Codes of single images of so many sites."""
  found = []
  for i, (h, w) in enumerate(shapes):
    z = normal((1, h, w, case.module.D), seed + i)
    codes = case.apply(z, method='encode')
    found.append((first(codes), (h, w)))
  return found


def first(codes):
  """The codes of the first image of a batch, as NumPy arrays."""
  return jax.tree.map(lambda x: np.asarray(x[0]), codes)


@pytest.fixture(scope='module', params=DISCRETE)
def known(request):
  """A bottleneck that has started, and a codec of its codes."""
  case = start_row(request.param)
  seen = maps(case, [(16, 16)] * 4)
  tables = fit_tables(case.module, seen)
  codec = Codec(case.module, F, F, tables, b'abcd')
  return case, codec


@pytest.mark.parametrize('shape', [(1, 1), (3, 5), (16, 16)])
def test_what_is_written_is_read(known, shape):
  case, codec = known
  [(codes, sites)] = maps(case, [shape], seed=9)
  for height, width in (
    (sites[0] * F, sites[1] * F),
    (sites[0] * F - codec.pad_multiple + 1, sites[1] * F - 1),
  ):
    data = codec.write(codes, height, width)
    found, *size = codec.read(data)
    assert size == [height, width]
    assert_same(found, codes)


def test_a_file_is_as_long_as_its_codes_are_probable(known):
  case, codec = known
  [(codes, sites)] = maps(case, [(16, 16)], seed=9)
  data = codec.write(codes, sites[0] * F, sites[1] * F)
  meter = Meter(codec.tables)
  case.module.transfer(meter, sites, codes)
  assert len(data) <= 1.01 * meter.bits / 8 + 16


def test_a_short_file_cannot_say_that_it_is_large(known):
  case, codec = known
  [(codes, _)] = maps(case, [(1, 1)])
  small = codec.write(codes, F, F)
  frame = container.unpack(small)._replace(height=2**20, width=2**20)
  with pytest.raises(InputError, match='too short for so many'):
    codec.read(container.pack(frame))


@pytest.mark.parametrize('row', ['vq-ema', 'lasers'])
def test_a_file_has_a_bit_for_each_code(row):
  """However probable they are; and no more zeros than that."""
  case = start_row(row)
  [(codes, sites)] = maps(case, [(1, 1)])
  codes = jax.tree.map(
    lambda x: np.tile(x[:1, :1], (30, 40, 1)[: x.ndim]), codes
  )
  sites = 30 * sites[0], 40 * sites[1]
  tables = fit_tables(case.module, [(codes, sites)] * 20)
  codec = Codec(case.module, F, F, tables, b'abcd')
  data = codec.write(codes, sites[0] * F, sites[1] * F)
  assert_same(codec.read(data)[0], codes)
  frame = container.unpack(data)
  assert 1200 <= 8 * len(frame.payload) < 1200 + 32
  more = frame._replace(payload=frame.payload + bytes(4))
  with pytest.raises(InputError, match='go on past their end'):
    codec.read(container.pack(more))


@pytest.mark.parametrize(
  'row',
  [
    'lasers',
    'vq-ema',
    'bsq',
    'lattice',
    'entropy',
    'priced-extras',
    'residual',
    'mqvae',
  ],
)
def test_what_a_context_model_writes_is_read(row, monkeypatch):
  for module in context, fit_scales:
    monkeypatch.setattr(module, 'STEPS', 3)
  case = start_row(row)
  tables = fit_tables(case.module, maps(case, [(6, 6)] * 4), context=True)
  assert any('@' in name for name in tables)
  codec = Codec(case.module, F, F, tables, b'abcd')
  for shape in (1, 1), (3, 5):
    [(codes, sites)] = maps(case, [shape], seed=9)
    found, *_ = codec.read(codec.write(codes, sites[0] * F, sites[1] * F))
    assert_same(found, codes)
