"""Your own images at 64 pixels, one latent vector each, D = 256, as in PMFS.

  python train.py --config=configs/folder64.py:vae --workdir=runs/mine/vae \
    --config.data.name=folder:/my/images

The argument chooses the autoencoder (presets/autoencoders.py has the names);
sample.py then draws new images. Time: for an accelerator, where it has not
been run to its end.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment import presets

SIDE = 64


def get_config(argument: str = 'vae') -> ConfigDict:
  config = {
    'steps': 20_000,
    'batch_size': 64,
    'data': {
      'name': 'folder:images',
      'side': SIDE,
      'resize': SIDE,  # the shorter side, before the crop
      'workers': 0,  # 8 or so for a set that does not fit in memory
    },
    'network': {
      'name': 'vector',
      'D': 256,
      'side': SIDE,
      'num_downsamples': 4,
    },
    'optimizer': {'learning_rate': 5e-4, 'warmup': 500},
    'evaluation': {'batch_size': 100},
    'log_every': 100,
    'checkpoint_every': 2_000,
    'checkpoints_kept': 1,
  }
  return ConfigDict(presets.of_vectors(config, argument, 3 * SIDE**2))
