"""What each site costs, against the lengths of files and by hand."""

import jax
import numpy as np
import pytest

from lasers_jax.codec import context, fit_scales, fit_tables
from lasers_jax.codec.site_bits import site_bits
from tests.bottlenecks.rows import normal, start_row
from tests.codec.meter import Meter

SITES = 6, 9
pytestmark = pytest.mark.slow

ROWS = 'lasers', 'vq-ema', 'bsq', 'priced', 'residual', 'mqvae', 'lista-kept'


def codes_of(case, seed, sites=SITES):
  z = normal((1, *sites, case.module.D), seed)
  codes = case.apply(z, method='encode')
  return jax.tree.map(lambda x: np.asarray(x[0]), codes)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
  for module in context, fit_scales:
    monkeypatch.setattr(module, 'STEPS', 5)


def fitted(case, with_context=False):
  maps = [(codes_of(case, seed), SITES) for seed in (1, 2)]
  return fit_tables(case.module, maps, with_context)


@pytest.mark.parametrize('with_context', [False, True])
@pytest.mark.parametrize('row', ROWS)
def test_sites_add_up_to_the_file(row, with_context):
  case = start_row(row)
  tables, codes = fitted(case, with_context), codes_of(case, 9)
  meter = Meter(tables)
  case.module.transfer(meter, SITES, codes)
  bits = site_bits(case.module, tables, codes, SITES)
  assert bits.shape == SITES
  assert bits.sum() == pytest.approx(meter.bits, rel=1e-5)
  assert len(np.unique(bits)) > 1


def test_a_site_has_the_bits_of_its_code():
  case = start_row('vq-ema')
  tables, codes = fitted(case), codes_of(case, 9)
  shares = tables['0'][0] / tables['0'].sum()
  np.testing.assert_allclose(
    site_bits(case.module, tables, codes, SITES), -np.log2(shares[codes])
  )


@pytest.mark.parametrize('with_context', [False, True])
def test_a_set_of_another_site_leaves_the_bits_before_it(with_context):
  case = start_row('lasers')
  tables, codes = fitted(case, with_context), codes_of(case, 9)
  before = site_bits(case.module, tables, codes, SITES)
  changed = jax.tree.map(np.copy, codes)
  for x, y in zip(changed, codes, strict=True):
    x[-1, -1] = y[0, 0]  # the last to come
  after = site_bits(case.module, tables, changed, SITES)
  same = np.ones(SITES, bool)
  same[-1, -1] = False
  np.testing.assert_array_equal(after[same], before[same])
  if not with_context:
    assert after[-1, -1] == before[0, 0] != before[-1, -1]


def test_only_kept_sites_pay_for_codes():
  case = start_row('mqvae')
  tables, codes = fitted(case), codes_of(case, 9)
  bits = site_bits(case.module, tables, codes, SITES).ravel()
  kept = np.isin(np.arange(bits.size), codes.positions)
  assert len(np.unique(bits[~kept])) == 1
  assert bits[kept].min() > bits[~kept].max()
