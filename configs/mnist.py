"""MNIST with one latent vector a digit, D = 32, as PMFS has it.

  python train.py --config=configs/mnist.py:vae --workdir=runs/mnist/vae

The argument chooses the autoencoder, see autoencoders.py; sample.py then draws
new digits. TFDS_DATA_DIR says where the data set is.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment.presets import autoencoders


def get_config(argument: str = 'vae') -> ConfigDict:
  config = ConfigDict()
  config.seed = 0
  config.steps = 8_000
  config.batch_size = 128

  config.data = ConfigDict()
  config.data.name = 'mnist'
  config.data.side = 28
  config.data.train = 'train[:55000]'
  config.data.validation = 'train[55000:]'
  config.data.test = 'test'
  config.data.flip = False
  config.data.workers = 0

  config.network = ConfigDict()
  config.network.name = 'vector'
  config.network.D = 32
  config.network.side = config.data.side
  config.network.width = 32
  config.network.num_downsamples = 2
  config.network.dtype = 'float32'

  config.loss = ConfigDict()
  config.bottleneck, config.loss.weights = autoencoders.choose(
    argument, config.data.side**2
  )
  config.loss.pixel = 'mse'

  config.optimizer = ConfigDict()
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup = 200
  config.optimizer.final = 0.0
  config.optimizer.clip = 0.0
  config.optimizer.accumulate = 1
  config.optimizer.ema = 0.999

  config.mesh = ConfigDict(dict(data=-1, fsdp=1, model=1))
  config.evaluation = ConfigDict(dict(batch_size=500, pictures=8))

  config.log_every = 500
  config.evaluate_every = 0
  config.checkpoint_every = 2_000
  config.checkpoints_kept = 1
  return config
