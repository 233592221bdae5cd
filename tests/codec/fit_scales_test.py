"""What is fitted to maps of integers, and what it saves."""

import numpy as np
import pytest

from lasers_jax.codec import fit_scales, scales
from lasers_jax.codec.coder import Reader, Writer
from lasers_jax.codec.counters import Counter, MapCollector
from lasers_jax.codec.scales import ScalePredictor, Scales
from lasers_jax.codec.scan import scan
from tests.codec.meter import Meter

pytest.importorskip('constriction')

LIMIT, PLANES = 63, 4
SIDE = 8


def draw_map(rng, planes=PLANES, side=SIDE):
  """A smooth plane, slopes of it, and noise as lively as the first is there."""
  lively = np.exp(rng.normal(size=(2, 2))).repeat(side // 2, 0)
  lively = lively.repeat(side // 2, 1)
  noise = rng.laplace(size=(side, side, planes)) * lively[..., None]
  walks = [np.cumsum(rng.normal(size=(side, side)), axis=i) for i in range(2)]
  level = 12 * rng.normal() + 2 * sum(walks)
  noise[..., 0] = level
  noise[..., 1] += 2 * np.gradient(level, axis=1)
  return np.clip(np.rint(noise), -LIMIT, LIMIT).astype(np.int64)


@pytest.fixture(scope='module')
def maps():
  rng = np.random.default_rng(0)
  return [draw_map(rng) for _ in range(120)]


@pytest.fixture(scope='module')
def fitted(maps):
  return fit_scales.fit(maps[:100], LIMIT)


def arrays(fitted):
  return {f'a@{name}': x for name, x in fitted._asdict().items()}


def bits_of(tables, maps):
  meter = Meter(tables)
  for codes in maps:
    meter.numbers('a', codes, codes.shape[:2], LIMIT, codes.shape[2])
  return meter.bits


def test_it_saves_what_tables_cannot(maps, fitted):
  counter = Counter()
  for codes in maps[:100]:
    counter.numbers('a', codes, codes.shape[:2], LIMIT, PLANES)
  plain, informed = (
    bits_of(tables, maps[100:]) for tables in (counter.tables(), arrays(fitted))
  )
  assert informed < 0.85 * plain


def test_means_save_what_scales_cannot(maps, fitted):
  """Of the slopes of the smooth plane."""
  without = fitted._replace(signed=np.zeros_like(fitted.signed))
  few = maps[100:]
  assert bits_of(arrays(fitted), few) < 0.97 * bits_of(arrays(without), few)


def test_planes_that_neighbours_predict_come_first(maps, fitted):
  np.testing.assert_array_equal(fitted.classes, [0, 1, 1, 1])
  other = [codes[..., [1, 2, 0, 3]] for codes in maps[:40]]
  quiet = [np.pad(codes, ((0, 0), (0, 0), (1, 0))) for codes in other]
  groups = list(fit_scales._groups(quiet))
  classes = fit_scales._classes(groups, fit_scales._fit_waves(groups))
  np.testing.assert_array_equal(classes, [2, 1, 1, 0, 1])


def test_means_of_smooth_planes_are_least_squares(maps, fitted):
  x, y = [], []
  order = scan(((SIDE, SIDE),))
  for codes in maps[:100]:
    plane = np.append(codes[..., 0].ravel(), 0)
    for step in order.waves:
      x += plane[step.near].T.tolist()
      y += plane[step.sites].tolist()
  design = np.pad(np.array(x), ((0, 0), (0, 1)), constant_values=1)
  slopes, *_ = np.linalg.lstsq(design, np.array(y), rcond=None)
  np.testing.assert_allclose(fitted.own[0, :, 0] / 256, slopes[:4], atol=0.01)
  assert abs(fitted.offset[0] / 256 - slopes[4]) < 0.02


def test_what_never_changes_costs_nothing(maps, monkeypatch):
  """There is no share of probability that all symbols have alike."""
  monkeypatch.setattr(fit_scales, 'STEPS', 300)
  quiet = [np.pad(x, ((0, 0), (0, 0), (0, 12))) for x in maps]
  net = fit_scales.fit(quiet[:100], LIMIT)
  order = scan(((SIDE, SIDE),))
  values = quiet[100].reshape(-1, PLANES + 12)
  predictor, bits = ScalePredictor(net, LIMIT, order), 0
  for planes, steps in predictor.parts():
    for step in steps:
      expected = predictor.expect(planes, step)
      predictor.learn(planes, step, values[step.sites, planes].T, expected)
      if planes.start >= PLANES:
        bits -= np.log2(net.common[expected.rows, 0] / 2**22).sum()
    predictor.finish(planes)
  assert bits / (12 * SIDE**2) < 4e-4


def test_it_is_fitted_to_maps_of_any_size(maps):
  collector = MapCollector()
  for codes in maps[:6], [x[:5] for x in maps[:6]], [maps[0][:1, :1]]:
    for some in codes:
      collector.numbers('a', some, some.shape[:2], LIMIT, PLANES)
  tables = collector.networks()
  shapes = scales.shapes(PLANES)._asdict()
  assert {k: x.shape for k, x in tables.items()} == {
    f'a@{k}': shape for k, shape in shapes.items()
  }
  assert all(x.dtype == np.int64 for x in tables.values())
  for name in 'least', 'near', 'sizes', 'common', 'scale_bins':
    assert (tables[f'a@{name}'] >= 0).all()


def test_many_planes_come_back(monkeypatch):
  """The last ones in groups, of which an unfinished one is no cause."""
  monkeypatch.setattr(fit_scales, 'STEPS', 3)
  rng = np.random.default_rng(3)
  several = [draw_map(rng, planes=240) for _ in range(4)]
  net = fit_scales.fit(several, LIMIT)
  assert net.sizes.shape == (192 + 1, 3, 240)
  assert net.sizes[192, :, 224:].all()
  assert not net.sizes[192, :, :224].any()
  writer = Writer(arrays(net))
  writer.numbers('a', several[0], (SIDE, SIDE), LIMIT, 240)
  reader = Reader(arrays(net), writer.payload())
  found = reader.numbers('a', None, (SIDE, SIDE), LIMIT, 240)
  reader.end()
  np.testing.assert_array_equal(found, several[0])


def test_a_table_of_few_counts_is_near_the_mean():
  counts = np.zeros((scales.ROWS, 3))
  counts[:2] = [900, 100, 0]
  table = fit_scales._weigh(counts)
  np.testing.assert_array_equal(table.sum(axis=1), 2**22)
  fractions = table / 2**22
  np.testing.assert_allclose(fractions[-1], fractions[0], atol=1e-2)
  assert table.min() >= 1


def test_all_fields_are_fitted(fitted):
  assert all(x.dtype == np.int64 for x in fitted)
  assert isinstance(fitted, Scales)
