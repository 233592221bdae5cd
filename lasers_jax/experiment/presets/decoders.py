"""Adds parts for sharp images to a config, by the name after a plus sign.

  --config=configs/cifar10.py:vq+gan

lpips      a perceptual loss
gan        a perceptual loss and a discriminator (VQ-GAN; DL-GAN with lasers)
swycc      a perceptual loss and a diffusion decoder, which refines the images
           of the first decoder
swycc-mse  the same without the perceptual loss
diffusion  the diffusion decoder with its loss alone: the first decoder learns
           only what helps the second
tuned      after one of these three: improvements that the paper does not have
wide       a network half as wide again, which has as many parameters on
           CIFAR-10 as one with the diffusion decoder

Several go together: vq+gan+wide.
"""

from typing import Any

from lasers_jax.errors import InputError, unknown
from lasers_jax.networks import NETWORKS
from lasers_jax.training.optimizer import OptimizerSettings

Config = dict[str, Any]  # nested


def add(config: Config, names: str) -> None:
  """Adds the sections and weights of parts, as in 'gan+wide'; '' adds none.

  The perceptual loss weighs 1/40 of the pixel loss, as in SWYCC: there 0.1 and
  1, of images in [-1, 1] whose squared error is four times that in [0, 1].

  Args:
    config: nested dictionaries, which are changed; they state `steps`,
      `data.side`, `network.name` and `loss.weights.pixel`.
  """
  for name in names.split('+') if names else ():
    if name not in _PARTS:
      raise unknown('the decoder', name, _PARTS)
    for part in _PARTS[name]:
      part(config)


def _is_small(config: Config) -> bool:
  return config['data']['side'] <= 64


def _perceptual(config: Config) -> None:
  weights = config['loss']['weights']
  config['loss']['perceptual'] = 'lpips-vgg16'  # or 'lpips-alexnet', 'resnet50'
  weights['perceptual'] = weights['pixel'] / 40


def _discriminator(config: Config) -> None:
  optimizer = config.get('optimizer', {})
  rate = optimizer.get('learning_rate', OptimizerSettings().learning_rate)
  discriminator = {
    'start': config['steps'] // 4,
    'warmup': config['steps'] // 40,
    'learning_rate': rate / 4,
  }
  if _is_small(config):
    discriminator |= {'channels': 32, 'num_downsamples': 2}
  else:
    discriminator['weight'] = 0.1
  config['discriminator'] = discriminator


def _diffusion(config: Config) -> None:
  # SWYCC's weights: 1 of the diffusion, 1 and 0.1 of the first decoder, there
  # with images in [-1, 1].
  weights = config['loss']['weights']
  weights['diffusion'] = weights['pixel'] / 4
  decoder = {
    'name': 'diffusion',
    'multipliers': (1, 2),  # assumed
    'num_downsamples': 1,  # assumed; 0 is near four times as slow
    'blocks': 1,  # assumed
  }
  if _is_small(config):
    decoder['channels'] = 32  # assumed
  if 'dtype' in config['network']:
    decoder['dtype'] = config['network']['dtype']
  config['decoder'] = decoder


def _alone(config: Config) -> None:
  weights = config['loss']['weights']
  weights['diffusion'] = weights['pixel']
  weights['pixel'] = 0.0


def _tuned(config: Config) -> None:
  if config.get('decoder', {}).get('name') != 'diffusion':
    raise InputError('tuned goes after swycc, swycc-mse or diffusion')
  decoder = config['decoder']
  decoder['latent'] = True
  decoder['training'] = {'signal_scale': 0.6, 'uniform_fraction': 0.5}
  decoder['sampling'] = {
    'steps': 5,
    'guidance': 3.0,
    'guidance_interval': (0.25, 1.0),
  }
  weights = config['loss']['weights']
  if 'perceptual' in weights:
    weights['refined_perceptual'] = weights['perceptual']


def _wider(config: Config) -> None:
  network = config['network']
  encoder, _ = NETWORKS[network['name']]
  channels = network.get('channels', encoder.channels)
  network['channels'] = channels + channels // 2


_PARTS = {
  'lpips': (_perceptual,),
  'gan': (_perceptual, _discriminator),
  'swycc': (_perceptual, _diffusion),
  'swycc-mse': (_diffusion,),
  'diffusion': (_diffusion, _alone),
  'tuned': (_tuned,),
  'wide': (_wider,),
}
