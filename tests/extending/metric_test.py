"""A metric that a user adds is measured and shown like those of the package."""

import json

import numpy as np
import pytest
from PIL import Image

from lasers_jax.experiment import evaluate
from lasers_jax.experiment.loading import load
from lasers_jax.metrics.registry import METRICS, load_metrics
from lasers_jax.report import comparison
from tests import tiny


@pytest.fixture(scope='module')
def found(tiny_run, tmp_path_factory):
  """The folder of an evaluation of the tiny run, with the metric added."""
  folder = tmp_path_factory.mktemp('extended')
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(METRICS, 'mae', None)  # which is undone at the end
    from tests.extending import toy_metric  # noqa: F401

    folders = {'output': str(folder), 'dump': str(folder / 'dump')}
    model, metrics = load(str(tiny_run.workdir)), load_metrics(['mae'])
    evaluate.illustrate(evaluate.measure(model, metrics=metrics, **folders))
    yield folder


def test_its_values_are_those_of_the_images(found):
  a, b = (
    np.float64(
      [Image.open(found / 'dump' / side / f'{i}.png') for i in range(tiny.TEST)]
    )
    for side in ('original', 'reconstruction')
  )
  value = json.loads((found / 'results.json').read_text())['mae']
  assert value['count'] == tiny.TEST
  expected = np.abs(a - b).mean() / 255
  np.testing.assert_allclose(value['mean'], expected, rtol=1e-5)


def test_results_say_how_it_was_measured(found):
  protocol = json.loads((found / 'results.json').read_text())['protocol']
  assert protocol['mae'].startswith('mean absolute error')


def test_the_report_and_the_table_show_it(found):
  text = (found / 'report.html').read_text()
  for shown in '<dt>MAE</dt>', '<h3>By MAE</h3>', 'Chart: MAE':
    assert shown in text
  results = json.loads((found / 'results.json').read_text())
  row = {'bottleneck': 'lasers', 'asked_bits_per_pixel': 1, 'settings': {}}
  table = comparison.table([{**row, 'results': results, 'error': None}])
  assert '| SSIM | MAE | usage |' in table
