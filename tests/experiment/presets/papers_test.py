"""The settings of papers, as configs get them."""

import copy

import pytest

from lasers_jax.errors import InputError
from lasers_jax.experiment import presets, settings
from lasers_jax.experiment.presets import papers

CONFIG = {'steps': 1_000, 'batch_size': 256, 'data': {'name': 'x', 'side': 256}}


def published(argument, **sections):
  return presets.published({**CONFIG, **sections}, argument)


@pytest.mark.parametrize(
  'argument, stated',
  [
    ('vq+gan', {'name': 'patchgan', 'loss': 'hinge', 'weight': 0.8}),
    ('fsq+gan', {'weight': 0.8, 'adaptive': True, 'start': 10_000}),
    ('lasers+gan', {'weight': 0.75, 'num_downsamples': 2, 'start': 0}),
    ('kl+gan', {'weight': 0.5, 'adaptive': True, 'start': 50_001}),
    ('ibq+gan', {'weight': 0.1, 'adaptive': False, 'lecam': 0.05}),
    ('none+gan', {'name': 'stylegan', 'loss': 'non_saturating', 'r1': 20.0}),
  ],
)
def test_the_discriminator_is_that_of_the_paper(argument, stated):
  section = published(argument)['discriminator']
  assert {key: section[key] for key in stated} == stated
  assert section['warmup'] == 0
  assert section['learning_rate'] == (
    8e-5 if argument.startswith('lasers') else 1e-4
  )


@pytest.mark.parametrize(
  'argument, pixel, weights',
  [
    # A loss of 1 of images in [-1, 1] is 2 (absolute) and 4 (squared) here.
    ('vq', 'l1', {'pixel': 2.0, 'commitment': 0.25}),
    ('vq+lpips', 'l1', {'pixel': 2.0, 'perceptual': 1.0}),
    ('ibq+gan', 'l1', {'pixel': 2.0, 'perceptual': 1.0, 'double': 1.0}),
    ('lasers+gan', 'mse', {'pixel': 4.0, 'perceptual': 1.0}),
    ('lasers+swycc', 'mse', {'dictionary': 0.25, 'commitment': 0.25}),
    ('none+gan', 'mse', {'pixel': 4.0, 'perceptual': 0.1}),
    ('none+swycc', 'mse', {'pixel': 4.0, 'perceptual': 0.1, 'diffusion': 1.0}),
    ('kl+swycc', 'mse', {'pixel': 4.0, 'perceptual': 0.1, 'diffusion': 1.0}),
    ('none+diffusion', 'mse', {'pixel': 0.0, 'diffusion': 4.0}),
  ],
)
def test_the_loss_is_that_of_the_paper(argument, pixel, weights):
  loss = published(argument)['loss']
  assert loss['pixel'] == pixel
  found = {key: loss['weights'][key] for key in weights}
  assert found == pytest.approx(weights)


def test_the_divergence_weighs_what_it_does_as_a_sum():
  """1e-6 of a sum over the latent, beside a sum over 3 x 256 x 256 numbers."""
  weight = published('kl')['loss']['weights']['kl']
  # The library's term is the sum over the latent, divided by its 1,024 sites.
  assert weight * 3 * 256**2 / 1024 == pytest.approx(1e-6)


@pytest.mark.parametrize('argument', ['none+swycc', 'vq+swycc+tuned'])
def test_the_diffusion_decoder_warms_up_and_decays(argument):
  config = published(argument)
  optimizer = config['optimizer']
  stated = {'learning_rate': 1e-4, 'warmup': 10_000, 'final': 0.0, 'clip': 1.0}
  assert {key: optimizer[key] for key in stated} == stated
  assert config['decoder']['multipliers'] == (1, 2, 4, 8)
  assert config['decoder']['dtype'] == 'bfloat16'
  assert config['decoder']['latent'] == ('tuned' in argument)


def test_a_config_overrules_a_paper():
  loss = {'weights': {'pixel': 3.0}}
  config = published('vq', loss=loss, network={'channels': 64})
  assert config['loss']['weights']['pixel'] == 3.0
  assert config['loss']['pixel'] == 'l1'
  assert config['network']['channels'] == 64
  assert config['network']['D'] == 256


def test_nothing_that_is_asked_for_changes_the_next():
  before = copy.deepcopy((papers._BOTTLENECKS, papers._VQGAN, papers._GANS))
  assert published('vq+gan+wide')['network']['channels'] == 192
  published('kl+swycc+tuned')
  published('none+gan')
  after = papers._BOTTLENECKS, papers._VQGAN, papers._GANS
  assert after == before
  assert 'channels' not in papers._VQGAN['network']


@pytest.mark.parametrize('argument', ['qv', 'vq+gann', 'none+tuned'])
def test_unknown_words_are_refused(argument):
  with pytest.raises(InputError, match='qv|gann|tuned goes after'):
    published(argument)


def test_a_config_of_any_bottleneck_can_be_built():
  for name in 'fsq', 'residual', 'product-fsq', 'wae':
    run = settings.from_config(published(f'{name}+gan'))
    assert run.model.encoder.f == 16
