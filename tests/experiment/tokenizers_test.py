"""Configs whose networks come from a tokenizer."""

import json

import pytest

import lasers_jax as lj
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings, tokenizers
from lasers_jax.training.objective import Objective
from tests import tiny

NETWORK = {'name': 'resnet', 'D': 4, 'channels': 8, 'multipliers': [1] * 4}


@pytest.fixture
def source(tmp_path):
  """The folder of a model, as far as a config asks for it."""
  config = {'format': 1, 'network': {**NETWORK, 'dtype': 'float32'}}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  return tmp_path


def config(source, pixel='latent', **changes) -> dict:
  found = tiny.config('unused', data__side=32)
  found['network'] = {'pretrained': str(source), 'frozen': True}
  found['loss']['pixel'] = pixel
  for section, keys in changes.items():
    found[section] = {**found.get(section, {}), **keys}
  return found


def test_a_config_gets_the_fields_of_its_source(source):
  changes = {'dtype': 'bfloat16', 'channels': 8, 'multipliers': (1,) * 4}
  found = tokenizers.completed(config(source, network=changes))['network']
  assert found['blocks'] == 2  # what a source leaves out is the default
  assert (found['dtype'], found['frozen']) == ('bfloat16', True)
  run = settings.from_config(config(source))
  assert run.source.pretrained == str(source)
  encoder = run.model.encoder
  assert (encoder.channels, encoder.f, encoder.D) == (8, 8, 4)
  assert run.model.frozen
  assert run.model.standardized
  again = {**config(source), 'network': {**found, 'source_hash': 'ab'}}
  assert tokenizers.completed(again) == again  # the source is not asked


def test_a_site_of_patches_is_of_as_many_pixels(source):
  vq = {'name': 'vq', 'K': 1024, 'patch': 2}
  run = settings.from_config({**config(source), 'bottleneck': vq})
  assert run.model.bottleneck.D == 16
  assert run.pad_multiple == run.model.stride == 16
  assert run.bits_per_pixel == 10 / 256
  assert run.model.coded_sites(64, 33) == (4, 3)
  assert run.model.sites(64, 33) == (8, 6)


DISCRIMINATOR = {'start': 0}


@pytest.mark.parametrize(
  'changes, expected',
  [
    (
      {'network': {'channels': 16}},
      'network.channels is 16 in the config and 8 in {}: leave it out, or name '
      'another network.pretrained',
    ),
    (
      {'network': {'blocks': 3}},
      'network.blocks is 3 in the config and 2 in {}: leave it out, or name '
      'another network.pretrained',
    ),
    (
      {'network': {'name': 'vqvae'}},
      "network.name is 'vqvae' in the config and 'resnet' in {}: leave it out, "
      'or name another network.pretrained',
    ),
    (
      {'network': {'pretrained': '/nowhere'}},
      'network.pretrained=/nowhere does not exist: bring it back, or say in '
      'the command of the run where it is now',
    ),
    (
      {'network': {'pretrained': '', **NETWORK}},
      'network.frozen=true keeps weights as they are: name the model that '
      'they are of, network.pretrained=PATH',
    ),
    (
      {'network': {'frozen': False}},
      "loss.pixel='latent' trains no network of images: it needs "
      'network.pretrained=PATH and network.frozen=true',
    ),
    (
      {'discriminator': DISCRIMINATOR},
      "loss.pixel='latent' makes no images, and a discriminator sees nothing "
      "else: take loss.pixel='mse', or leave out the discriminator",
    ),
    (
      {'degradation': {'name': 'denoise'}},
      'degradation.name: an encoder learns to restore images by a loss of '
      'images: leave out network.frozen, or the degradation',
    ),
    (
      {'discriminator': DISCRIMINATOR, 'pixel': 'mse'},
      'discriminator.adaptive=true goes by the gradient of the last layer, '
      'which network.frozen=true keeps: set discriminator.adaptive=false',
    ),
  ],
)
def test_what_contradicts_is_told(source, changes, expected):
  with pytest.raises(InputError) as error:
    settings.from_config(config(source, **changes))
  assert str(error.value) == expected.format(source)


def test_a_prior_has_no_networks(tmp_path):
  (tmp_path / 'config.json').write_text('{"format": 1, "stage_one": {}}')
  with pytest.raises(InputError) as error:
    settings.from_config(config(tmp_path))
  assert str(error.value) == (
    f'{tmp_path} is a prior, and has no networks of images'
  )


@pytest.mark.parametrize('bottleneck', ['lasers', 'residual', 'entropy'])
def test_a_config_of_the_package_asks_for_a_source(source, bottleneck):
  found = lj.config(
    'recode',
    bottleneck=bottleneck,
    network__pretrained=str(source),
    bottleneck__patch=2,
  )
  run = settings.from_config(found)
  assert run.model.frozen
  assert run.model.stride == 16
  objective = Objective(run.model, run.loss)
  assert not objective.decodes
  objective.check_weights(run.data.side)
