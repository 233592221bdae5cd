"""A codec for photographs, of your own pictures: f = 8, one model, many rates.

  python train.py --config=configs/codec.py:entropy --workdir=runs/codec \
    --config.data.name=folder:/my/pictures
  python codec.py curve --model=runs/codec --step=0.1,0.2,0.4 --context \
    other/*.png

The argument chooses the bottleneck, see bottlenecks.py. With `entropy`, blocks
start as the cosines of JPEG, and training shows the decoder many steps; with
`lasers` codes of 1 to S atoms (--S=1,2,3,4). Some twenty minutes on two CPU
cores; README.md has the curves to expect.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment.presets import bottlenecks


def get_config(argument: str = 'entropy') -> ConfigDict:
  config = ConfigDict()
  config.seed = 0
  config.steps = 6_000
  config.batch_size = 16

  config.data = ConfigDict()
  config.data.name = 'folder:pictures'
  config.data.side = 64
  config.data.resize = 128  # the shorter side, before the crop
  config.data.train = 'train'
  config.data.validation = 'validation'
  config.data.test = 'test'
  config.data.flip = True
  config.data.whole = False
  config.data.workers = 0  # 8 or so for a set that does not fit in memory

  config.network = ConfigDict()
  config.network.name = 'vqvae'
  config.network.D = 48
  config.network.f = 8
  config.network.width = 128
  config.network.residual_width = 64
  config.network.residual_blocks = 3
  config.network.dtype = 'float32'

  config.loss = ConfigDict()
  config.bottleneck, config.loss.weights = bottlenecks.choose(argument, K=1024)
  config.loss.pixel = 'mse'

  config.optimizer = ConfigDict()
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.dictionary_learning_rate = 1e-3
  config.optimizer.warmup = 200
  config.optimizer.final = 0.0
  config.optimizer.clip = 1.0
  config.optimizer.accumulate = 1
  config.optimizer.ema = 0.999

  config.mesh = ConfigDict(dict(data=-1, fsdp=1, model=1))
  config.evaluation = ConfigDict(dict(batch_size=32, pictures=8))

  config.log_every = 100
  config.evaluate_every = 1_500
  config.checkpoint_every = 500
  config.checkpoints_kept = 1
  if argument == 'entropy':
    _use_blocks(config)
  elif argument == 'lasers':
    _use_prefixes(config)
  return config


def _use_blocks(config: ConfigDict) -> None:
  config.network = ConfigDict(
    dict(name='block', D=192, f=8, width=192, blocks=3, dtype='float32')
  )
  config.bottleneck.limit = 127
  config.bottleneck.max_step_scale = 6.0
  config.loss.weights.rate = 8e-5
  config.optimizer.learning_rate = 3e-4


def _use_prefixes(config: ConfigDict) -> None:
  config.bottleneck.S = 4
  config.bottleneck.coefficient_bits = 2
  config.bottleneck.pursuit = 'rounded'
  config.bottleneck.progressive = True
  config.bottleneck.sparsity_dropout = 0.75
