"""The report of a finished run: its pictures, numbers and words."""

import json

import jax
import numpy as np
import pytest

from lasers_jax import coding
from lasers_jax.experiment import evaluate
from lasers_jax.experiment.loading import load
from lasers_jax.report import document
from tests import browser, tiny
from tests.report.document_test import Page, sections


@pytest.fixture(scope='module')
def evaluated(tiny_run, tmp_path_factory):
  """The report of the tiny run, and what it was made of."""
  folder, seen = tmp_path_factory.mktemp('report'), []
  render = document.render

  def listen(*parts):
    seen.extend(parts)
    return render(*parts)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(document, 'render', listen)
    evaluate.evaluate(str(tiny_run.workdir), output=str(folder))
  return folder / 'report.html', *seen


def psnr(a, b):
  return -10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2))


def test_pictures_are_those_of_the_numbers(evaluated):
  path, _, measured, findings, _ = evaluated
  text = sections(path.read_text())['images']
  shown = Page(text).pictures
  numbers = [i for x in findings.ranked['psnr'].values() for i in x]
  assert len(numbers) == 9
  assert len(shown) == 27
  for place, i in enumerate(numbers):
    original, copy, error = (np.float64(x) for x in shown[3 * place :][:3])
    np.testing.assert_allclose(
      psnr(original, copy), measured.values['psnr'][i], rtol=1e-3
    )
    expected = np.clip(5 * np.abs(original - copy), 0, 255)
    np.testing.assert_array_equal(error, expected)
  best, *_, worst = sorted(measured.values['psnr'], reverse=True)
  assert f'PSNR {best:.2f} dB' in text
  assert f'PSNR {worst:.2f} dB' in text


def test_coefficients_come_in_the_order_of_the_pursuit(tiny_run, evaluated):
  findings = evaluated[3]
  model = load(str(tiny_run.workdir))
  assert findings.pursued == tiny.TEST
  data = model.experiment.data
  images = data.first_images(data.open('test'), tiny.TEST)
  images = np.stack(images).astype(np.float32) / 255

  @jax.jit
  def expected(variables):
    bound = model.module.bind(variables)
    z, coder = bound.encoder(images - 0.5), bound.bottleneck
    scale = coder.coefficients.usual()
    atoms = coder.atoms()[:, 0, 0] - coder.mean.value[None]
    signals = z.reshape(-1, 4) - coder.mean.value[None]
    code = coding.batch_omp(signals, atoms.T / scale[None], 2)
    steps = coder.coefficients.multiples()[1:-1]
    return code.coefficients, scale.max() * jax.numpy.diff(steps).max()

  exact, rounding = expected(model.variables)
  assert findings.coefficients.shape == exact.shape == (640, 2)
  inside = np.abs(exact) < np.quantile(np.abs(exact), 0.9)
  np.testing.assert_allclose(
    findings.coefficients[inside], exact[inside], atol=rounding + 1e-5
  )


def test_atoms_come_by_their_use(evaluated):
  _, _, measured, findings, _ = evaluated
  used = measured.counts[findings.numbers]
  assert len(used) == 16
  assert np.all(np.diff(used) <= 0)
  assert findings.atoms.shape[0] == 16


def test_the_report_of_a_run_says_how_it_was_made(evaluated, tiny_run):
  path, results, *_ = evaluated
  text = Page(path.read_text()).text
  assert results['protocol']['weights'] in text
  assert tiny_run.config['data']['name'] in text
  assert jax.__version__ in text
  assert 'residual_blocks' in text
  assert json.loads(path.with_name('results.json').read_text())


@browser.needed
def test_a_browser_shows_the_report_of_a_run(evaluated, tmp_path):
  said, shot = browser.look(evaluated[0], tmp_path)
  assert said == []
  assert shot.shape == (2000, 1280, 3)
  browser.assert_readable(shot)
