"""Every config builds, and takes a step."""

import importlib
import inspect
import pathlib

import jax
import numpy as np
import pytest

from lasers_jax.bottlenecks import BOTTLENECKS
from lasers_jax.experiment import settings
from lasers_jax.experiment.priors import settings as prior_settings
from lasers_jax.training.adversarial import make_adversary
from lasers_jax.training.objective import make_objective
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.state import state_shapes
from lasers_jax.training.step import make_train_step

pytestmark = pytest.mark.slow

# These have one latent vector an image, and choose what holds it.
VECTORS = ('folder64', 'mnist')
RECIPES = ('ffhq256', 'imagenet256')  # recipes_test traces their steps
AUTOENCODERS = ('ae', 'vae', 'beta_vae', 'wae', 'info_vae', 'rae')
CONFIGS = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parent.parent / 'configs').glob('*.py')
  # Of a run of another kind, and of networks that stand elsewhere.
  if path.stem not in (*VECTORS, 'prior', 'recode')
)


def get_config(name, bottleneck):
  return importlib.import_module(f'configs.{name}').get_config(bottleneck)


# Each config with one bottleneck, and each bottleneck with one config.
PAIRS = [('cifar10', b) for b in BOTTLENECKS]
PAIRS += [
  (name, 'lasers') for name in CONFIGS if name not in ('cifar10', *RECIPES)
]
PAIRS += [('cifar10', f'vq+{x}') for x in ('lpips', 'gan', 'diffusion')]
PAIRS += [('folder', 'lasers+swycc+tuned')]
PAIRS += [('mnist', x) for x in AUTOENCODERS] + [('folder64', 'vae')]
# The others are traced, not compiled.
COMPILED = [('photos', 'lasers'), ('mnist', 'rae')]


@pytest.mark.parametrize('name, bottleneck', PAIRS)
def test_takes_a_step(name, bottleneck):
  config = get_config(name, bottleneck)
  config.network.channels = 16
  if config.network.name == 'resnet':
    config.network.update(multipliers=(1, 2), blocks=1, attention=(2,))
  if config.network.name == 'vector':
    config.network.side = 16
  bottleneck_config = config.bottleneck.get('inner', config.bottleneck)
  if 'K' in bottleneck_config:
    bottleneck_config.K = 16
  config.data.side = 16
  config.data.resize = None
  config = config.to_dict()
  if 'S' in config['bottleneck']:
    config['bottleneck']['S'] = 2
  run = settings.from_config(config)
  objective, perceptual_params = make_objective(run.model, run.loss)
  objective.check_weights(run.data.side)
  optimizer = make_optimizer(run.optimizer, run.steps)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)

  def draw(shape):  # To compile how weights start takes longer than the step.
    return 0.1 * rng.standard_normal(shape.shape).astype(shape.dtype)

  adversary = run.discriminator and make_adversary(run.discriminator)
  state = state_shapes(run.model, optimizer, run.data.side, adversary)
  state = state.replace(
    step=np.int32(0),
    key=jax.random.key(0),
    params=jax.tree.map(draw, state.params),
    ema_params=jax.tree.map(draw, state.ema_params),
    codebook=jax.tree.map(draw, state.codebook),
    opt_state=jax.tree.map(
      lambda x: np.zeros(x.shape, x.dtype), state.opt_state
    ),
  )
  step = make_train_step(objective, optimizer, run.optimizer.ema, adversary)
  if (name, bottleneck) not in COMPILED:
    after, metrics = jax.eval_shape(step, state, images, perceptual_params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(x.shape == () for x in jax.tree.leaves(metrics))
    return
  state, metrics = jax.jit(step)(state, images)
  assert int(state.step) == 1
  assert all(np.isfinite(x) for x in jax.tree.leaves(metrics))


@pytest.mark.parametrize('name', CONFIGS)
def test_every_bottleneck_can_be_asked_for(name):
  for bottleneck in BOTTLENECKS:
    # The sparse codes of a codec are those with a price.
    priced = (name, bottleneck) == ('codec', 'lasers')
    expected = 'priced' if priced else bottleneck
    assert get_config(name, bottleneck).bottleneck.name == expected


def test_any_code_has_the_blocks_of_the_codec():
  whole = get_config('codec', 'entropy')
  for argument, name in ('sets+block', 'lasers'), ('vq+block+lpips', 'vq'):
    config = get_config('codec', argument)
    assert config.bottleneck.name == name
    assert config.network == whole.network
    assert config.data.side == whole.data.side
  assert config.loss.weights.perceptual
  assert get_config('codec', 'lasers+lpips').bottleneck.name == 'priced'


def test_the_codec_of_sets_is_lasers():
  config = get_config('codec', 'sets')
  assert config.bottleneck.name == 'lasers'
  assert config.bottleneck.pursuit == 'rounded'


@pytest.mark.parametrize('name', [*CONFIGS, *VECTORS])
def test_unknown_bottlenecks_are_refused(name):
  with pytest.raises(settings.InputError, match="is 'qv': "):
    get_config(name, 'qv')


@pytest.mark.parametrize('name', [*CONFIGS, *VECTORS])
def test_opens_with_the_command_that_runs_it(name):
  module = importlib.import_module(f'configs.{name}')
  which = inspect.signature(module.get_config).parameters['argument'].default
  assert f'python train.py --config=configs/{name}.py:{which}' in module.__doc__


def test_unknown_decoders_are_refused():
  with pytest.raises(settings.InputError, match="is 'gann': did you mean gan"):
    get_config('cifar10', 'vq+gann')


def test_decoders_go_together():
  config = get_config('cifar10', 'vq+gan+wide')
  assert config.network.channels == 192
  assert 'discriminator' in config


def test_tuned_changes_a_diffusion_decoder():
  config = get_config('cifar10', 'vq+swycc-mse+tuned')
  assert config.decoder.latent
  assert config.decoder.sampling.guidance == 3.0
  assert 'refined_perceptual' not in config.loss.weights
  with pytest.raises(settings.InputError, match='tuned goes after swycc'):
    get_config('cifar10', 'vq+gan+tuned')


def test_what_is_none_takes_an_integer():
  one, other = (get_config('cifar10', 'none') for _ in range(2))
  one.bottleneck.value_bits = 2  # as --config.bottleneck.value_bits=2 does
  assert one.to_dict()['bottleneck']['value_bits'] == 2
  assert other.to_dict()['bottleneck']['value_bits'] is None


@pytest.mark.parametrize('name', ['ar', 'masked', 'flow'])
@pytest.mark.parametrize('size', ['', '+small', '+XL'])
def test_configs_of_priors_build(name, size):
  config = get_config('prior', f'{name}{size}').to_dict()
  run = prior_settings.from_config(config)
  module = prior_settings.build_prior(run, sites=(8, 8), classes=10, D=16)
  assert module.width == {'': 128, '+small': 256, '+XL': 1152}[size]
