import importlib
import pathlib

import pytest

from lasers_jax.bottlenecks import BOTTLENECKS
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings
from lasers_jax.networks import NETWORKS
from lasers_jax.training.objective import Objective

ROOT = pathlib.Path(__file__).parents[2]


CONFIGS = sorted(
  path.stem
  for path in (ROOT / 'configs').glob('*.py')
  if 'def get_config' in path.read_text()
)


def minimal() -> dict:
  """All that a config must say, and no more."""
  return {
    'steps': 1,
    'batch_size': 2,
    'data': {'name': 'photos', 'side': 32},
    'network': {'name': 'vqvae', 'D': 16},
    'bottleneck': {'name': 'lasers'},
  }


def changed(**changes) -> dict:
  """The minimal config with `section__key=value`; None takes a key away."""
  config = minimal()
  for path, value in changes.items():
    *sections, key = path.split('__')
    place = config
    for section in sections:
      place = place.setdefault(section, {})
    if value is None:
      del place[key]
    else:
      place[key] = value
  return config


def message(config) -> str:
  with pytest.raises(InputError) as error:
    settings.from_config(config)
  assert '\n' not in str(error.value)
  return str(error.value)


# Each bottleneck with one config, and each config with some bottlenecks.
PAIRS = [('cifar10', bottleneck) for bottleneck in BOTTLENECKS]
PAIRS += [(x, y) for x in ('folder', 'photos') for y in ('lasers', 'fsq')]
PAIRS += [('folder', 'residual'), ('folder', 'product')]


def assert_fields(module, section):
  for key, value in section.items():
    if key == 'inner':
      assert_fields(module.inner, value)
    elif key != 'name':
      assert getattr(module, key) == value


@pytest.mark.parametrize('name, bottleneck', PAIRS)
def test_configs_build(name, bottleneck):
  config = importlib.import_module(f'configs.{name}').get_config(bottleneck)
  run = settings.from_config(config.to_dict())
  assert isinstance(run.model.bottleneck, BOTTLENECKS[bottleneck])
  section = dict(config.bottleneck)
  assert section.pop('patch') == run.model.patch == 1
  assert_fields(run.model.bottleneck, section)
  Objective(run.model, run.loss).check_weights(run.data.side)


def test_what_a_config_leaves_out_has_its_default():
  run = settings.from_config(minimal())
  assert run.model.bottleneck == BOTTLENECKS['lasers'](D=16)
  assert run.optimizer == settings.OptimizerSettings()
  assert run.mesh == settings.MeshSettings()
  assert run.pad_multiple == 4
  assert run.bits_per_pixel == 79 / 16


def test_lists_become_tuples_which_modules_need():
  config = changed(network__name='resnet')
  config['network']['multipliers'] = [1, 1, 2]
  encoder = settings.from_config(config).model.encoder
  assert encoder.multipliers == (1, 1, 2)
  hash(encoder)


def test_config_is_not_changed():
  config = minimal()
  settings.from_config(config)
  assert config == minimal()


@pytest.mark.parametrize(
  'changes, key, nearest',
  [
    ({'stepps': 1}, 'stepps', 'steps'),
    ({'botleneck': {}}, 'botleneck', 'bottleneck'),
    ({'data__sid': 32}, 'data.sid', 'data.side'),
    ({'network__chanels': 8}, 'network.chanels', 'network.channels'),
    (
      {'bottleneck__revive_evry': 1},
      'bottleneck.revive_evry',
      'bottleneck.revive_every',
    ),
    ({'loss__weigths': {}}, 'loss.weigths', 'loss.weights'),
    (
      {'optimizer__learning_rat': 1},
      'optimizer.learning_rat',
      'optimizer.learning_rate',
    ),
    ({'mesh__dat': 1}, 'mesh.dat', 'mesh.data'),
    (
      {'evaluation__batchsize': 1},
      'evaluation.batchsize',
      'evaluation.batch_size',
    ),
  ],
)
def test_unknown_keys(changes, key, nearest):
  assert message(changed(**changes)) == (
    f'nothing reads the config key {key}; did you mean {nearest}?'
  )


@pytest.mark.parametrize(
  'changes, key',
  [
    ({'bottleneck': {'name': 'vq', 'S': 5}}, 'bottleneck.S'),
    ({'bottleneck__inner': {'name': 'vq', 'patch': 2}}, 'bottleneck.inner'),
    # These are set from elsewhere.
    ({'bottleneck__D': 8}, 'bottleneck.D'),
    ({'bottleneck__parent': 1}, 'bottleneck.parent'),
    ({'model': {}}, 'model'),
  ],
)
def test_keys_that_nothing_reads(changes, key):
  start = message(changed(**changes)).partition(';')[0]
  assert start == f'nothing reads the config key {key}'


@pytest.mark.parametrize(
  'path', ['steps', 'batch_size', 'data__name', 'data__side']
)
def test_missing_keys(path):
  key = path.replace('__', '.')
  assert message(changed(**{path: None})) == f'the config has no {key}'


def test_missing_width_of_the_latent():
  vq = {'name': 'vq'}
  for section in (vq, {'name': 'residual', 'inner': vq}):
    config = changed(network__D=None, bottleneck=section)
    assert message(config) == 'the config has no network.D'


def test_slices_of_the_latent_are_as_many_as_a_product_has_by_default():
  config = changed(bottleneck={'name': 'product', 'inner': {'name': 'vq'}})
  bottleneck = settings.from_config(config).model.bottleneck
  assert bottleneck.inner.D * bottleneck.groups == bottleneck.D == 16
  config['bottleneck']['groups'] = 2
  assert settings.from_config(config).model.bottleneck.inner.D == 8


def test_unknown_names():
  assert message(changed(bottleneck__name='laser')) == (
    "bottleneck.name is 'laser': did you mean lasers?"
  )
  assert message(changed(network__name='vqva')) == (
    "network.name is 'vqva': did you mean vqvae?"
  )
  for section, table in ('network', NETWORKS), ('bottleneck', BOTTLENECKS):
    of_all = f'it must be one of {", ".join(table)}'
    for name in (3, ['qqq'], 'qqq'):
      assert message(changed(**{f'{section}__name': name})) == (
        f'{section}.name is {name!r}: {of_all}'
      )
    assert message(changed(**{section: None})) == (
      f'{section}.name is None: {of_all}'
    )


@pytest.mark.parametrize(
  'changes, expected',
  [
    (
      {'bottleneck__S': 600},
      'bottleneck: S must be from 1 to K = 512, got S = 600',
    ),
    (
      {'bottleneck__patch': 0},
      'bottleneck.patch is 0: it must be a whole number, at least 1',
    ),
    (
      {'data__side': 30},
      'data.side=30 is not a multiple of 4 (factor 4 × latent patch 1)',
    ),
    (
      {'data__side': 36, 'bottleneck__patch': 2},
      'data.side=36 is not a multiple of 8 (factor 4 × latent patch 2)',
    ),
    (
      {'network__dtype': 'float16'},
      "network.dtype must be float32 or bfloat16: 'float16'",
    ),
    (
      {'loss__pixel': 'l2'},
      'loss.pixel must be one of ',
    ),
    (
      {'optimizer__name': 'sgd'},
      "optimizer.name must be one of ('adam', 'adamw'): 'sgd'",
    ),
    (
      {'bottleneck': {'name': 'product', 'groups': 0, 'inner': {'name': 'vq'}}},
      'bottleneck.groups is 0: it must be a whole number, at least 1',
    ),
    (
      {'bottleneck': {'name': 'product', 'inner': {'name': 'vq'}, 'groups': 5}},
      'bottleneck: groups must divide D = 16, got groups = 5',
    ),
    (
      {
        'network__D': 'wide',
        'bottleneck': {'name': 'residual', 'inner': {'name': 'vq'}},
      },
      "network.D is 'wide': it must be a whole number, at least 1",
    ),
    # A section that is not one.
    ({'data': 'photos'}, "data must be a section of keys, not 'photos'"),
    ({'network': 'vqvae'}, "network must be a section of keys, not 'vqvae'"),
  ],
)
def test_values_that_cannot_be_used(changes, expected):
  assert message(changed(**changes)).startswith(expected)


@pytest.mark.parametrize(
  'changes, line',
  [
    (
      {'optimizer__weight_decay': 0.1},
      "optimizer.weight_decay goes with name='adamw' only",
    ),
    (
      {'loss__weights': {'pixel': 0.0, 'commitment': 0}},
      'loss.weights are all 0: nothing would be learned',
    ),
    (
      {'loss__perceptual_weights': 'file.npz'},
      'loss.perceptual_weights needs loss.perceptual',
    ),
    (
      {'bottleneck': {'name': 'vq', 'inner': {'name': 'vq'}}},
      'nothing reads the config key bottleneck.inner',
    ),
    (
      {
        'bottleneck': {
          'name': 'product',
          'groups': 32,
          'inner': {'name': 'lattice'},
        }
      },
      'bottleneck: groups must divide D = 16, got groups = 32',
    ),
  ],
)
def test_values_that_nothing_would_come_of(changes, line):
  assert message(changed(**changes)).startswith(line)
