"""Your own images: a folder, nested or flat, of 64 to 256 pixels and more.

  python train.py --config=configs/folder.py:lasers --workdir=runs/mine \
    --config.data.name=folder:/my/images

The argument names the bottleneck and, after plus signs, parts for sharper
images, as in vq+gan (the names are in lasers_jax/experiment/presets). The
network is the VQGAN family's, f = 8; `network.multipliers` sets the factor, one
doubling a level after the first. Time: for an accelerator, where it has not
been run to its end; on a CPU the same command with configs/photos.py.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment import presets


def get_config(argument: str = 'lasers') -> ConfigDict:
  config = {
    'steps': 100_000,
    'batch_size': 64,
    'data': {
      'name': 'folder:images',
      'side': 128,
      'resize': 128,  # the shorter side, before the crop
      'workers': 0,  # 8 or so for a set that does not fit in memory
    },
    'network': {
      'name': 'resnet',
      'D': 16,
      'multipliers': (1, 1, 2, 2),
      'attention': (8,),  # at this down-sampling factor
      'dtype': 'bfloat16',
    },
    'bottleneck': {'K': 1024},
    'optimizer': {
      'name': 'adamw',
      'learning_rate': 2e-4,
      'dictionary_learning_rate': 2e-4,
      'warmup': 1_000,
      'final': 0.1,
      'weight_decay': 1e-4,
      'clip': 1.0,
      'ema': 0.9995,
    },
    'evaluation': {'batch_size': 64},
    'log_every': 100,
    'evaluate_every': 5_000,
    'checkpoint_every': 1_000,
  }
  return ConfigDict(presets.complete(config, argument))
