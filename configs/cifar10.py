"""CIFAR-10 in the paper's setting: f = 4, D = 16, K = 512, S = 5.

  python train.py --config=configs/cifar10.py:lasers --workdir=runs/lasers

The argument chooses the bottleneck, see bottlenecks.py, and after a plus sign
what makes images sharp, see decoders.py. TFDS_DATA_DIR says where the data set
is. Half an hour on two CPU cores; README.md has the numbers to expect.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment.presets import bottlenecks, decoders


def get_config(argument: str = 'lasers') -> ConfigDict:
  bottleneck, _, decoder = argument.partition('+')
  config = ConfigDict()
  config.seed = 0
  config.steps = 7_000
  config.batch_size = 32  # at equal compute, better than 64 and 128

  config.data = ConfigDict()
  config.data.name = 'cifar10'
  config.data.side = 32
  config.data.train = 'train[:49000]'
  config.data.validation = 'train[49000:]'
  config.data.test = 'test'
  config.data.flip = True
  config.data.workers = 0

  config.network = ConfigDict()
  config.network.name = 'vqvae'  # the paper's, section 3.5
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
  config.optimizer.learning_rate = 2e-3
  config.optimizer.dictionary_learning_rate = 1e-3
  config.optimizer.warmup = 200
  config.optimizer.final = 0.0
  config.optimizer.clip = 1.0
  config.optimizer.accumulate = 1
  config.optimizer.ema = 0.999

  config.mesh = ConfigDict(dict(data=-1, fsdp=1, model=1))
  config.evaluation = ConfigDict(dict(batch_size=128, pictures=8))

  config.log_every = 100
  config.evaluate_every = 2_500
  config.checkpoint_every = 1_000
  config.checkpoints_kept = 2
  decoders.add(config, decoder)
  return config
