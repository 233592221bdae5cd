"""The face of the library: `import lasers_jax as lj`."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import lasers_jax as lj
from lasers_jax.experiment import sources
from tests import tiny

NAMES = {
  'DictionaryLearning',
  'Hooks',
  'InputError',
  'SparseCode',
  'TrainedModel',
  'TrainingError',
  '__version__',
  'batch_omp',
  'bottlenecks',
  'config',
  'draw',
  'evaluate',
  'load',
  'load_prior',
  'models',
  'priors',
  'train',
}
ROOT = pathlib.Path(__file__).parent.parent


def test_the_names_are_all_there():
  assert set(lj.__all__) == NAMES
  assert set(dir(lj)) >= NAMES
  for name in lj.__all__:
    assert getattr(lj, name) is not None
  with pytest.raises(AttributeError, match="'lasers_jax' has no attribute 'x'"):
    _ = lj.x


def test_every_function_says_what_it_does():
  for name in NAMES - {'__version__'}:
    assert getattr(lj, name).__doc__


def test_importing_waits_for_nothing():
  code = (
    'import sys, lasers_jax; '
    'heavy = {"jax", "numpy", "absl", "sklearn"} & set(sys.modules); '
    'assert not heavy, heavy; print(dir(lasers_jax))'
  )
  said = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True
  )
  assert b"'TrainedModel'" in said.stdout


def test_a_layer_and_a_prior():
  rng = np.random.default_rng(0)
  signals = rng.standard_normal((6, 4)).astype(np.float32)
  dictionary = np.eye(4, dtype=np.float32)
  code = lj.batch_omp(signals, dictionary, 2)
  assert isinstance(code, lj.SparseCode)
  assert code.atoms.shape == (6, 2)
  assert lj.bottlenecks.VQ(D=4, K=8).bits_per_site == 3
  assert lj.priors.PMFS(k=2).k == 2
  assert lj.priors.GMM is not None


def test_a_config_is_plain_and_complete():
  config = lj.config(
    'photos', bottleneck='vq', decoder='gan', steps=7, bottleneck__K=64
  )
  assert type(config) is dict
  assert type(config['data']) is dict
  assert (config['steps'], config['bottleneck']['K']) == (7, 64)
  assert config['bottleneck']['name'] == 'vq'
  assert 'discriminator' in config
  assert config['seed'] == 0  # a default
  named = lj.config(str(ROOT / 'configs/photos.py:vq'), data__name='folder:/x')
  assert named['data']['name'] == 'folder:/x'


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    (dict(name='photo'), "the config 'photo' is no file; did you mean "),
    (dict(stops=3), 'the config has no key stops; did you mean steps?'),
    (
      dict(optimizer__learning_rat=3),
      'no key optimizer__learning_rat; did you mean optimizer__learning_rate?',
    ),
    (dict(steps__x=3), 'the config has no key steps__x'),
    (dict(steps=-3), 'steps'),
    (dict(decoder='gan'), "decoder='gan' requires a bottleneck"),
    (dict(name='photos:vq', bottleneck='vq'), 'names a bottleneck already'),
    (dict(bottleneck='vqq'), "'vqq'"),
  ],
)
def test_a_config_that_cannot_be_is_one_line(changes, said):
  with pytest.raises(lj.InputError, match=re.escape(said)) as error:
    lj.config(**{'name': 'photos', **changes})
  assert '\n' not in str(error.value)


class Watched(lj.Hooks):
  """Keeps the losses of a run."""

  def __init__(self):
    self.losses = []

  def on_step(self, step, metrics):
    self.losses.append(metrics['loss'])


def test_training_on_images_of_a_program(tmp_path):
  config = tiny.config('nowhere', steps=2, evaluate_every=2)
  images, hooks = tiny.images(12), Watched()
  splits = {'train': images, 'validation': tiny.images(3, seed=1)}
  model = lj.train(config, tmp_path / 'run', splits, hooks)
  assert isinstance(model, lj.TrainedModel)
  assert model.step == 2
  assert hooks.losses == tiny.losses(tmp_path / 'run')
  last = tiny.metrics(tmp_path / 'run')[-1]
  found = lj.evaluate(
    model, splits['validation'], 'validation', output=str(tmp_path / 'out')
  )
  assert (tmp_path / 'out' / 'report.html').exists()
  assert found['psnr']['count'] == 3
  assert found['protocol']['split'] == 'validation'
  np.testing.assert_allclose(
    found['psnr']['mean'], last['validation/psnr'], rtol=1e-6
  )
  # Nobody takes the data set of the config for what the model was trained on.
  for act in lj.evaluate, lambda x: x.statistics():
    with pytest.raises(lj.InputError, match='were given by a program'):
      act(model)
  again = lj.train({**config, 'steps': 3}, tmp_path / 'run', splits)
  assert again.step == 3


@pytest.mark.parametrize(
  ('data', 'said'),
  [
    ({'tarin': [1]}, 'a key of data is .tarin.: did you mean train'),
    ({'validation': [1]}, 'data has no images to train on'),
    (3, 'must have a length and an index, and is 3'),
    ([], "data of the split 'train' is empty"),
    (tiny.images(8), 'evaluate_every=2 requires images to validate with'),
    ('folder:/no/such', "no folder '/no/such'"),
  ],
)
def test_data_that_cannot_be_is_one_line(tmp_path, data, said):
  config = tiny.config('nowhere', evaluate_every=2)
  with pytest.raises(lj.InputError, match=said):
    lj.train(config, tmp_path / 'run', data)
  assert not (tmp_path / 'run').exists()


def test_one_object_is_the_training_images():
  images = tiny.images(3)
  (role, source), *more = sources.by_role(images).items()
  assert role == 'train'
  assert not more
  np.testing.assert_array_equal(source[2]['image'], images[2])


@pytest.mark.slow
def test_the_script_runs(tmp_path):
  pytest.importorskip('constriction')
  process = subprocess.run(
    [sys.executable, str(ROOT / 'tests/face_script.py')],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_NUM_CPU_DEVICES': '1'},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert process.returncode == 0, process.stderr
  lines = process.stdout.splitlines()
  assert lines[0].startswith('codes (16, 23), latents (16, 23, 16)')
  assert 'bits per pixel in a file' in lines[1]
  assert lines[2].startswith('PSNR ')
