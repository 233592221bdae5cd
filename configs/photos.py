"""Photographs that come with scikit-image and scikit-learn: no download.

  python train.py --config=configs/photos.py:lasers --workdir=runs/photos

The argument names the bottleneck and, after plus signs, parts for sharper
images, as in vq+gan (the names are in lasers_jax/experiment/presets). Trains on
random crops of seven photographs and reports two that it has not seen, whole.
Your own images train as well with --config.data.name=folder:/my/images.
Time: some minutes on two CPU cores. To expect: 30 dB at 4.96 bits per pixel.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment import presets


def get_config(argument: str = 'lasers') -> ConfigDict:
  config = {
    'steps': 600,
    'batch_size': 32,
    'data': {'name': 'photos', 'side': 32, 'resize': 256, 'whole': True},
    'network': {'name': 'vqvae', 'D': 16},
    'optimizer': {
      'learning_rate': 3e-3,
      'warmup': 50,
      'clip': 1.0,
      'ema': 0.99,
    },
    'mesh': {'data': 1},
    'evaluation': {'batch_size': 1, 'pictures': 2},
    'evaluate_every': 600,
    'checkpoint_every': 300,
  }
  return ConfigDict(presets.complete(config, argument))
