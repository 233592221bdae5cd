"""Your own pictures at 64 pixels, one latent vector each, D = 256, as in PMFS.

  python train.py --config=configs/folder64.py:vae --workdir=runs/mine/vae \
    --config.data.name=folder:/my/pictures

The argument chooses the autoencoder, see autoencoders.py; sample.py then draws
new pictures.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment.presets import autoencoders


def get_config(argument: str = 'vae') -> ConfigDict:
  config = ConfigDict()
  config.seed = 0
  config.steps = 20_000
  config.batch_size = 64

  config.data = ConfigDict()
  config.data.name = 'folder:pictures'
  config.data.side = 64
  config.data.resize = 64  # the shorter side, before the crop
  config.data.train = 'train'
  config.data.validation = 'validation'
  config.data.test = 'test'
  config.data.flip = True
  config.data.workers = 0  # 8 or so for a set that does not fit in memory

  config.network = ConfigDict()
  config.network.name = 'vector'
  config.network.D = 256
  config.network.side = config.data.side
  config.network.width = 64
  config.network.num_downsamples = 4
  config.network.dtype = 'float32'

  config.loss = ConfigDict()
  config.bottleneck, config.loss.weights = autoencoders.choose(
    argument, 3 * config.data.side**2
  )
  config.loss.pixel = 'mse'

  config.optimizer = ConfigDict()
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 5e-4
  config.optimizer.warmup = 500
  config.optimizer.final = 0.0
  config.optimizer.clip = 0.0
  config.optimizer.accumulate = 1
  config.optimizer.ema = 0.999

  config.mesh = ConfigDict(dict(data=-1, fsdp=1, model=1))
  config.evaluation = ConfigDict(dict(batch_size=100, pictures=8))

  config.log_every = 100
  config.evaluate_every = 0
  config.checkpoint_every = 2_000
  config.checkpoints_kept = 1
  return config
