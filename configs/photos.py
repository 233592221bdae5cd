"""Photographs that come with scikit-image and scikit-learn: no download.

  python train.py --config=configs/photos.py:lasers --workdir=runs/photos

The argument chooses the bottleneck, see bottlenecks.py, and after a plus sign
what makes images sharp, see decoders.py. Trains on random crops of seven
photographs, some minutes on two CPU cores, and reports two that it has not
seen, whole: about 30 dB at 4.96 bits per pixel. Your own pictures train as well
with --config.data.name=folder:/my/pictures.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment.presets import bottlenecks, decoders


def get_config(argument: str = 'lasers') -> ConfigDict:
  bottleneck, _, decoder = argument.partition('+')
  config = ConfigDict()
  config.seed = 0
  config.steps = 600
  config.batch_size = 32

  config.data = ConfigDict()
  config.data.name = 'photos'
  config.data.side = 32
  config.data.resize = 256
  config.data.train = 'train'
  config.data.validation = 'validation'
  config.data.test = 'test'
  config.data.flip = True
  config.data.whole = True
  config.data.workers = 0

  config.network = ConfigDict()
  config.network.name = 'vqvae'
  config.network.D = 16
  config.network.f = 4
  config.network.width = 128
  config.network.residual_width = 32
  config.network.residual_blocks = 2
  config.network.dtype = 'float32'

  config.loss = ConfigDict()
  config.bottleneck, config.loss.weights = bottlenecks.choose(bottleneck)
  config.loss.pixel = 'mse'

  config.optimizer = ConfigDict()
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 3e-3
  config.optimizer.dictionary_learning_rate = 1e-3
  config.optimizer.warmup = 50
  config.optimizer.final = 0.0
  config.optimizer.clip = 1.0
  config.optimizer.accumulate = 1
  config.optimizer.ema = 0.99

  config.mesh = ConfigDict(dict(data=1, fsdp=1, model=1))
  config.evaluation = ConfigDict(dict(batch_size=1, pictures=2))

  config.log_every = 50
  config.evaluate_every = 600
  config.checkpoint_every = 300
  config.checkpoints_kept = 2
  decoders.add(config, decoder)
  return config
