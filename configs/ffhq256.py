"""FFHQ at 256 pixels, in the settings of papers, with batches of 256.

  python train.py --config=configs/ffhq256.py:lasers+gan --workdir=runs/ffhq \
    --config.data.name=folder:/data/ffhq256

The words are those of configs/imagenet256.py, and docs/recipes.md tells where
each setting is from. A step takes so many operations (GFLOP) an image:

  word         parameters   GFLOP      steps   published rFID
  lasers+gan      103.6 M   1,325     41,000   3.37 [1]
  vq+gan           72.9 M   1,344    200,000   5.25 with K = 16,384 [2]

[1] README of helloimlixin/laser: all 70,000 images, TorchMetrics' Inception.
[2] arXiv 2406.11837, table of FFHQ; its own VQGAN.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment import presets


def get_config(argument: str = 'lasers+gan') -> ConfigDict:
  name = argument.partition('+')[0]
  config = {
    # 150 epochs, as [1]; the others take 800, as [2], of 63,000 images.
    'steps': 41_000 if name == 'lasers' else 200_000,
    'batch_size': 256,
    'data': {
      'name': 'folder:ffhq256',
      'side': 256,
      'resize': 256,  # the shorter side, before the crop
      'workers': 16,
    },
    'evaluation': {'batch_size': 256},
    'log_every': 100,
    'evaluate_every': 10_000,
    'checkpoint_every': 2_500,
  }
  return ConfigDict(presets.published(config, argument))
