"""The configs in the settings of papers are what the papers say, full size."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import pytest

from lasers_jax.experiment import settings
from lasers_jax.training.objective import make_objective
from lasers_jax.training.state import state_shapes
from lasers_jax.training.step import make_train_step

SIDE = 256
IMAGES = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
WORDS = [
  ('imagenet256', word)
  for word in ('vq', 'lasers', 'kl', 'ibq', 'none')
  for word in (word, f'{word}+gan', f'{word}+swycc')
]
WORDS += [('ffhq256', word) for word in ('vq+gan', 'lasers+gan', 'none+swycc')]
# Each network, loss and discriminator once.
TRACED = ['vq+gan', 'lasers+gan', 'kl+gan', 'ibq+gan', 'none+gan', 'none+swycc']


def config_of(name, word):
  return importlib.import_module(f'configs.{name}').get_config(word)


@functools.cache
def run_of(name, word):
  return settings.from_config(config_of(name, word).to_dict())


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


@functools.cache
def shapes_of(word):
  """The output and the parameters of a model, as shapes."""
  model = run_of('imagenet256', word).model
  output, variables = jax.eval_shape(
    model.init_with_output, jax.random.key(0), IMAGES
  )
  return output, variables['params']


@pytest.mark.parametrize('name, word', WORDS)
def test_builds_for_a_pod_and_a_node(name, word):
  run = run_of(name, word)
  assert (run.data.side, run.data.resize, run.data.flip) == (SIDE, SIDE, True)
  assert run.batch_size == run.evaluation.batch_size == 256
  assert ('gan' in word) == (run.discriminator is not None)
  assert ('swycc' in word) == run.model.decoder.is_stochastic
  assert ('swycc' in word) == (run.optimizer.final == 0)


@pytest.mark.parametrize(
  'word, latent, K, bits',
  [
    ('vq', (16, 16, 256), 1024, 256 * 10),
    ('lasers', (8, 8, 256), 2048, 64 * (21 + 2 * 10)),
    ('kl', (32, 32, 4), 0, None),
    ('ibq', (16, 16, 256), 2**18, 256 * 18),
    ('none', (32, 32, 8), 0, None),
  ],
)
def test_the_latent_is_as_published(word, latent, K, bits):
  run = run_of('imagenet256', word)
  output, _ = shapes_of(word)
  assert output.images.shape == IMAGES.shape
  assert output.latent.quantized.shape == (1, *latent)
  assert run.model.bottleneck.K == K
  assert run.bits_per_pixel == (bits and bits / SIDE**2)


def down_convs(*widths):
  """What 4x4 convolutions that halve have more than the 3x3 of VQGAN."""
  return sum(7 * width**2 for width in widths)


def test_parameters_of_vqgan():
  """72 million, as LlamaGen's README gives for this network."""
  _, params = shapes_of('vq')
  assert size(params['decoder']) == 42_449_795
  total = size(params) - down_convs(128, 128, 256, 256)
  assert round(total / 1e6) == 72


def test_parameters_of_the_kl_autoencoder():
  """83,653,863, of latent diffusion's f = 8 with d = 4."""
  _, params = shapes_of('kl')
  # Its last convolution gives means and variances, and 1x1 convolutions
  # of 8 and of 4 channels stand around the latent.
  encoder = size(params['encoder']) - down_convs(128, 256, 512)
  encoder += 9 * 512 * 4 + 4
  assert encoder + (8 * 8 + 8) + (4 * 4 + 4) + 49_490_179 == 83_653_863
  assert size(params['decoder']) == 49_490_179


def test_four_residual_blocks_and_a_wide_codebook_of_ibq():
  _, params = shapes_of('ibq')
  assert params['bottleneck']['codes'].shape == (2**18, 256)
  assert size(params['encoder']) > 1.5 * size(shapes_of('vq')[1]['encoder'])


def test_the_unet_of_swycc_has_four_levels_and_attends_at_16x16():
  model = run_of('imagenet256', 'none+swycc').model
  _, params = shapes_of('none+swycc')

  def terms(images, output):
    return model.apply(
      {'params': params_of(model)},
      images,
      output,
      jax.random.key(0),
      method='decoder_losses',
      mutable=['intermediates'],
      capture_intermediates=True,
    )[1]

  def params_of(model):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)

  kept = jax.eval_shape(terms, IMAGES, shapes_of('none+swycc')[0])
  unet = kept['intermediates']['decoder']['unet']
  attending = {
    layer['__call__'][0].shape
    for name, layer in unet.items()
    if name.startswith('Attention')
  }
  assert attending == {(1, 16, 16, 1024)}
  blocks = [
    layer['__call__'][0].shape
    for name, layer in unet.items()
    if name.startswith('Block')
  ]
  assert {shape[1:] for shape in blocks} == {
    (128, 128, 128),
    (64, 64, 256),
    (32, 32, 512),
    (16, 16, 1024),
  }
  assert len(blocks) == 4 * (2 + 3) + 1


def rows(name):
  """The lines of a header: word -> [parameters in millions, steps]."""
  header = importlib.import_module(f'configs.{name}').__doc__
  row = r'^  ([a-z]+\+[a-z]+) +([\d.]+) M +[\d,]+ +([\d,]+) '
  return {
    word: [float(millions), int(steps.replace(',', ''))]
    for word, millions, steps in re.findall(row, header, re.MULTILINE)
  }


@pytest.mark.parametrize('name', ['imagenet256', 'ffhq256'])
def test_headers_state_parameters_and_steps(name):
  stated = rows(name)
  assert len(stated) == {'imagenet256': 6, 'ffhq256': 2}[name]
  for word, (millions, steps) in stated.items():
    run = run_of(name, word)
    assert run.steps == steps
    # A discriminator, which only training has, is not counted.
    own = word if run.model.decoder.is_stochastic else word.split('+')[0]
    assert millions == round(size(shapes_of(own)[1]) / 1e6, 1)
    assert run.model == run_of('imagenet256', word).model


@pytest.mark.parametrize('D, ratio', [(4, 48), (8, 24), (16, 12), (32, 6)])
def test_compression_ratios_are_a_flag(D, ratio):
  config = config_of('imagenet256', 'none+swycc')
  config.network.D = D
  model = settings.from_config(config.to_dict()).model
  z = jax.eval_shape(
    lambda key, x: model.encoder.init_with_output(key, x)[0],
    jax.random.key(0),
    IMAGES,
  )
  assert IMAGES.size / z.size == ratio


def test_codes_of_vqgan_are_a_flag():
  config = config_of('imagenet256', 'vq+gan')
  config.bottleneck.K = 16_384
  run = settings.from_config(config.to_dict())
  assert run.bits_per_pixel == 256 * 14 / SIDE**2


@pytest.mark.slow
@pytest.mark.parametrize('word', TRACED)
def test_traces_a_step(word):
  run = run_of('imagenet256', word)
  objective, perceptual_params = make_objective(run.model, run.loss)
  objective.check_weights(SIDE)
  optimizer, adversary = settings.build_learners(run)
  state = state_shapes(run.model, optimizer, SIDE, adversary)
  step = make_train_step(objective, optimizer, run.optimizer.ema, adversary)
  images = jax.ShapeDtypeStruct(IMAGES.shape, jnp.uint8)
  after, metrics = jax.eval_shape(step, state, images, perceptual_params)
  assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(
    lambda x: x.shape, state
  )
  assert all(x.shape == () for x in jax.tree.leaves(metrics))
