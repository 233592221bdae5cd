"""Your own pictures: a folder, nested or flat, of 64 to 256 pixels and more.

  python train.py --config=configs/folder.py:lasers --workdir=runs/mine \
    --config.data.name=folder:/my/pictures

The argument chooses the bottleneck, see bottlenecks.py, and after a plus sign
what makes images sharp, see decoders.py. The network is the VQGAN family's,
f = 8; `network.multipliers` sets the factor, one doubling a level after the
first. On an accelerator; on a CPU the same command with configs/photos.py.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment.presets import bottlenecks, decoders


def get_config(argument: str = 'lasers') -> ConfigDict:
  bottleneck, _, decoder = argument.partition('+')
  config = ConfigDict()
  config.seed = 0
  config.steps = 100_000
  config.batch_size = 64

  config.data = ConfigDict()
  config.data.name = 'folder:pictures'
  config.data.side = 128
  config.data.resize = 128  # the shorter side, before the crop
  config.data.train = 'train'
  config.data.validation = 'validation'
  config.data.test = 'test'
  config.data.flip = True
  config.data.whole = False
  config.data.workers = 0  # 8 or so for a set that does not fit in memory

  config.network = ConfigDict()
  config.network.name = 'resnet'
  config.network.D = 16
  config.network.width = 128
  config.network.multipliers = (1, 1, 2, 2)
  config.network.blocks = 2
  config.network.attention = (8,)  # at this down-sampling factor
  config.network.dtype = 'bfloat16'

  config.loss = ConfigDict()
  config.bottleneck, config.loss.weights = bottlenecks.choose(
    bottleneck, K=1024
  )
  config.loss.pixel = 'mse'  # or 'l1'

  config.optimizer = ConfigDict()
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-4
  config.optimizer.dictionary_learning_rate = 2e-4
  config.optimizer.warmup = 1_000
  config.optimizer.final = 0.1
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip = 1.0
  config.optimizer.accumulate = 1
  config.optimizer.ema = 0.9995

  config.mesh = ConfigDict(dict(data=-1, fsdp=1, model=1))
  config.evaluation = ConfigDict(dict(batch_size=64, pictures=8))

  config.log_every = 100
  config.evaluate_every = 5_000
  config.checkpoint_every = 1_000
  config.checkpoints_kept = 2
  decoders.add(config, decoder)
  return config
