"""A decoder from outside the package does what the package's own do."""

import json
import types

import jax
import numpy as np
import pytest

from lasers_jax.decoders import DECODERS
from lasers_jax.errors import InputError
from lasers_jax.evaluation import examples
from lasers_jax.experiment import evaluate, loop, settings
from lasers_jax.experiment.loading import load
from lasers_jax.training.objective import make_objective
from tests import tiny
from tests.extending.toy_decoder import ColourCorrection

pytestmark = pytest.mark.slow

STEPS = 3


def config(pictures, **decoder) -> dict:
  result = tiny.config(pictures, steps=STEPS)
  # The code that takes least time to compile.
  result['bottleneck'] = {'name': 'vq', 'K': 16}
  result['loss']['weights'] = {'pixel': 10.0, 'commitment': 0.25}
  result['decoder'] = {'name': 'colour', **decoder}
  result['loss']['weights']['colour'] = 1.0
  return result


@pytest.fixture(scope='module')
def run(pictures, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('colour') / 'run'
  state = loop.train_and_evaluate(config(pictures), str(workdir))
  return types.SimpleNamespace(workdir=str(workdir), state=state)


def test_it_learns_beside_the_network(run, tiny_run):
  decoder = run.state.params['decoder']
  assert decoder.keys() == tiny_run.first.params['decoder'].keys() | {'mix'}
  kernel = np.asarray(decoder['mix']['kernel'])
  assert 0 < np.abs(kernel - np.eye(3)).max() < 0.1
  lines = tiny.metrics(run.workdir)
  assert len(lines) == STEPS
  assert all(0 < x['colour'] < 1 for x in lines)


def test_it_starts_as_the_plain_decoder(pictures):
  images = tiny.images(2) / np.float32(255)
  chosen = config(pictures)
  del chosen['decoder'], chosen['loss']['weights']['colour']
  plain = settings.from_config(chosen).model
  model = settings.from_config(config(pictures)).model
  a, b = (
    jax.jit(x.init_with_output)(jax.random.key(0), images)[0].images
    for x in (plain, model)
  )
  np.testing.assert_allclose(a, b, atol=1e-5)


def test_it_is_evaluated_and_reconstructs(run, tmp_path):
  results = evaluate.evaluate(run.workdir, output=str(tmp_path))
  assert results['protocol']['decoder'] == 'one pass'
  assert 'initial' not in results
  page = (tmp_path / 'report.html').read_text()
  assert '<h1>vq + colour on ' in page
  model = load(run.workdir)
  images = tiny.images(2)
  found = model.reconstruct(images)
  output = model.module.apply(model.variables, images / np.float32(255))
  expected = np.round(255 * np.clip(output.images, 0, 1))
  assert np.abs(expected - found).max() <= 1


class Noisy(ColourCorrection):
  """Stands for a decoder that samples, and has no steps."""

  is_stochastic = True

  def sample(self, quantized, draw, settings):
    images = self(quantized)
    return images + 0.1 * draw.normal(images.shape[1:], seed=0)


def test_one_that_samples_is_shown_to(run, tmp_path, monkeypatch):
  monkeypatch.setitem(DECODERS, 'colour', Noisy)
  evaluate.evaluate(run.workdir, output=str(tmp_path))
  results = json.loads((tmp_path / 'results.json').read_text())
  assert results['psnr']['mean'] < results['initial']['psnr']['mean'] - 0.5
  page = (tmp_path / 'report.html').read_text()
  assert page.count('<figcaption>sample 4<br>') == examples.SAMPLED
  assert '<section id="steps">' not in page


@pytest.mark.parametrize(
  'changes, line',
  [
    ({'window': 0}, 'decoder.window is 0: .* at least 1'),
    ({'windw': 8}, 'nothing reads the config key decoder.windw; did you mean'),
    (
      {'training': {'signal_scale': 1.0}},
      "nothing reads decoder.training: decoder.name='colour' has no such",
    ),
  ],
)
def test_its_section_is_checked(changes, line):
  with pytest.raises(InputError, match=line):
    settings.from_config(config('unused', **changes))


def test_its_term_needs_a_weight():
  chosen = config('unused')
  del chosen['loss']['weights']['colour']
  run = settings.from_config(chosen)
  objective, _ = make_objective(run.model, run.loss)
  with pytest.raises(InputError, match='missing: colour$'):
    objective.check_weights(run.data.side)
