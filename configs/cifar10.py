"""CIFAR-10 in the paper's setting: f = 4, D = 16, K = 512, S = 5.

  python train.py --config=configs/cifar10.py:lasers --workdir=runs/lasers

The argument names the bottleneck and, after plus signs, parts for sharper
images, as in vq+gan (the names are in lasers_jax/experiment/presets).
TFDS_DATA_DIR says where the data set is. Time: half an hour on two CPU cores.
To expect: 34.5 dB at 4.94 bits per pixel, and with cifar10:vq 25.1 dB at
0.5625, see docs/results/cifar10-lasers-7000.json and cifar10-vq-7000.json.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment import presets


def get_config(argument: str = 'lasers') -> ConfigDict:
  config = {
    'steps': 7_000,
    'batch_size': 32,  # at equal compute, better than 64 and 128
    'data': {
      'name': 'cifar10',
      'side': 32,
      'train': 'train[:49000]',
      'validation': 'train[49000:]',
    },
    'network': {'name': 'vqvae', 'D': 16},  # the paper's, section 3.5
    'optimizer': {'learning_rate': 2e-3, 'warmup': 200, 'clip': 1.0},
    'log_every': 100,
    'evaluate_every': 2_500,
    'checkpoint_every': 1_000,
  }
  return ConfigDict(presets.complete(config, argument))
