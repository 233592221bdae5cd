"""The rows of metrics, and those that have networks on a tiny run."""

import functools
import json

import numpy as np
import pytest
from flax import linen as nn

from lasers_jax.core import sharding
from lasers_jax.errors import InputError
from lasers_jax.evaluation import protocol
from lasers_jax.experiment import evaluate
from lasers_jax.experiment.loading import load
from lasers_jax.metrics.base import Extractor, PerImage, Rows, extract
from lasers_jax.metrics.frechet import FeatureStatistics, frechet_distance
from lasers_jax.metrics.registry import (
  ALWAYS,
  METRICS,
  Metrics,
  known,
  load_metrics,
)
from tests import tiny


class Means(nn.Module):
  """Stands for a network: the mean colour, scaled by a parameter."""

  @nn.compact
  def __call__(self, images):
    return images.mean((1, 2)) * self.param('scale', nn.initializers.ones, ())


class Distance(nn.Module):
  @nn.compact
  def __call__(self, a, b):
    scale = self.param('scale', nn.initializers.ones, ())
    return scale * abs(a - b).mean((1, 2, 3))


PARAMS = {'scale': np.float32(2)}
COLOURS = Extractor(
  Means(),
  PARAMS,
  lambda images: images.astype(np.float32) / 255,
  FeatureStatistics,
  frechet_distance,
)


@pytest.fixture(scope='module')
def found(tiny_run, tmp_path_factory):
  """Results, and the images behind them: [2, n, h, w, 3] in [0, 1]."""
  from PIL import Image

  folder = tmp_path_factory.mktemp('measured')
  distance = PerImage(Distance(), PARAMS)
  metrics = Metrics(
    {**ALWAYS.of_images, 'lpips-alexnet': distance}, {'fd-vgg16': COLOURS}
  )
  dump = str(folder / 'dump')
  model, folders = load(tiny_run.workdir), {'output': str(folder), 'dump': dump}
  evaluate.illustrate(evaluate.measure(model, metrics=metrics, **folders))
  images = [
    [
      np.asarray(Image.open(folder / 'dump' / side / f'{i}.png'))
      for i in range(tiny.TEST)
    ]
    for side in ('original', 'reconstruction')
  ]
  results = json.loads((folder / 'results.json').read_text())
  return results, np.float64(images) / 255


def test_distances_are_of_single_images(found):
  results, (a, b) = found
  expected = 2 * np.abs(a - b).mean((1, 2, 3))
  assert results['lpips-alexnet']['count'] == tiny.TEST
  np.testing.assert_allclose(
    results['lpips-alexnet']['mean'], expected.mean(), rtol=1e-5
  )


def test_scores_are_of_all_images(found):
  results, images = found
  sides = FeatureStatistics(), FeatureStatistics()
  for side, x in zip(sides, images, strict=True):
    side.add(2 * x.mean((1, 2)))
  np.testing.assert_allclose(
    results['fd-vgg16'], frechet_distance(*sides), rtol=1e-3
  )


def test_the_protocol_names_the_metrics(found):
  protocol = found[0]['protocol']
  assert 'no FID' in protocol['fd-vgg16']
  assert protocol['lpips-alexnet'] == METRICS['lpips-alexnet'].protocol
  hashes = protocol['weights_of_metrics']
  assert set(hashes) == {'lpips-alexnet', 'fd-vgg16'}
  assert all(len(x) == 16 for x in hashes.values())
  assert 'fid' not in protocol
  assert protocol['count'] == tiny.TEST


def test_features_are_of_all_rows_on_any_mesh():
  images = tiny.images(8)
  expected = 2 * images.mean((1, 2)) / 255
  for devices in 1, 8:
    mesh = sharding.make_mesh(data=devices)
    found = extract(COLOURS, images, mesh)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_features_are_not_of_padding():
  images = tiny.images(2)
  sizes = np.array([(16, 16), (12, 9)], np.int32)
  resized = COLOURS._replace(
    prepare=lambda images: images.mean((1, 2), keepdims=True) / 255
  )
  found = extract(resized, images, sharding.make_mesh(data=1), sizes)
  for row, image, (h, w) in zip(found, images, sizes, strict=True):
    np.testing.assert_allclose(row, 2 * image[:h, :w].mean((0, 1)) / 255, 1e-5)


def test_a_network_for_any_size_is_told_the_sizes():
  class Told(nn.Module):
    def __call__(self, images, sizes):
      return images.mean((1, 2)) * 0 + sizes[:, :1]

  told = COLOURS._replace(module=Told(), params={}, any_size=True)
  sizes = np.array([(16, 16), (12, 9)], np.int32)
  found = extract(told, tiny.images(2), sharding.make_mesh(data=1), sizes)
  np.testing.assert_array_equal(found[:, 0], [16, 12])


def test_images_too_small_for_a_metric_are_refused():
  metrics = load_metrics(['ms_ssim'])
  assert metrics.minimum_side == 176
  protocol.check_size(176, 200, metrics)
  with pytest.raises(InputError, match='MS-SSIM needs .* 176x176 .*180x175'):
    protocol.check_size(180, 175, metrics)


def test_small_images_are_measured_by_what_fits_them():
  metrics = load_metrics(['ms_ssim'])
  assert list(metrics.fitting(175).of_images) == ['psnr', 'ssim']
  assert list(metrics.fitting(176).of_images) == ['psnr', 'ssim', 'ms_ssim']
  assert metrics.fitting(10).modules == metrics.modules[:1]


def test_the_table_is_sound():
  for name, row in METRICS.items():
    assert row.over in ('image', 'set', 'restoration'), name
    assert (row.load is None) == (row.over == 'restoration'), name
    assert '\n' not in row.protocol
    # Only single images can be ranked, or have an interval at the top.
    assert row.over == 'image' or not (row.ranks or row.headline), name
  assert [x for x, row in METRICS.items() if row.always] == ['psnr', 'ssim']


def test_names_are_brought_into_the_order_of_the_table():
  assert list(known(['fid', 'bits', 'ssim', 'psnr'])) == ['psnr', 'ssim', 'fid']


def test_numbers_are_written_as_the_row_says():
  psnr, ssim = METRICS['psnr'], METRICS['ssim']
  assert (psnr.heading, ssim.heading) == ('PSNR in dB', 'SSIM')
  assert (psnr.number(20.126), psnr.quantity(20.126)) == ('20.13', '20.13 dB')
  assert ssim.quantity(0.5) == '0.5000'


def test_loading_twice_compiles_once():
  assert load_metrics(['ms_ssim']).modules == load_metrics(['ms_ssim']).modules


def test_rows_are_kept():
  rows, x = Rows(), np.arange(12.0).reshape(4, 3)
  rows.add(x[:1])
  rows.add(x[1:])
  np.testing.assert_array_equal(rows.all, x)


@pytest.mark.parametrize(
  'load, line',
  [
    (
      functools.partial(load_metrics, ['ms_sim']),
      "metrics is 'ms_sim': did you mean ms_ssim",
    ),
    (
      functools.partial(load_metrics, ['psnr_hole']),
      'psnr_hole is measured of restorations .*: leave it out',
    ),
    (
      functools.partial(load_metrics, ['fid']),
      'fid needs a file of weights, --metric_weights=fid=FILE: pt_inception',
    ),
    (
      functools.partial(load_metrics, ['cmmd']),
      '--metric_weights=cmmd=FILE: model.safetensors',
    ),
    (
      functools.partial(load_metrics, ['ms_ssim'], {'fid': 'x'}),
      "metric_weights has a file for 'fid', which is not measured",
    ),
  ],
)
def test_what_cannot_be_measured(load, line):
  with pytest.raises(InputError, match=line):
    load()


def test_multi_scale_similarity_needs_no_weights():
  metrics, images = load_metrics(['ms_ssim']), np.zeros((1, 176, 176, 3))
  images = np.float32(images)
  module, params = dict(metrics.modules)['ms_ssim'], metrics.params['ms_ssim']
  values = module.apply({'params': params}, images, images)
  np.testing.assert_allclose(values, 1)
