"""MNIST with one latent vector a digit, D = 32, as PMFS has it.

  python train.py --config=configs/mnist.py:vae --workdir=runs/mnist/vae

The argument chooses the autoencoder (presets/autoencoders.py has the names);
sample.py then draws new digits. TFDS_DATA_DIR says where the data set is.
To expect: docs/results/digits.md.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment import presets

SIDE = 28


def get_config(argument: str = 'vae') -> ConfigDict:
  config = {
    'steps': 8_000,
    'batch_size': 128,
    'data': {
      'name': 'mnist',
      'side': SIDE,
      'train': 'train[:55000]',
      'validation': 'train[55000:]',
      'flip': False,
    },
    'network': {'name': 'vector', 'D': 32, 'side': SIDE, 'channels': 32},
    'optimizer': {'warmup': 200},
    'evaluation': {'batch_size': 500},
    'log_every': 500,
    'checkpoint_every': 2_000,
    'checkpoints_kept': 1,
  }
  # The three channels of a digit are one.
  return ConfigDict(presets.of_vectors(config, argument, SIDE**2))
