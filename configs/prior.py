"""Priors over the codes or latents of a trained model.

  python train_prior.py --config=prior:ar --model=runs/vq --workdir=runs/vq-ar

The argument names the prior and, after a plus sign, its size:

  ar      over sites, then over the integers of a site, one by one: exact bits
  masked  sites in any order, in few steps: an upper bound of bits
  flow    flow matching of latents (--config.view=z or quantized)

Sizes (width x layers) are tiny 128 x 4, small 256 x 6, S 384 x 12, B 768 x 12,
L 1024 x 24 and XL 1152 x 28, as in flow+S. The optimizer's settings are those
that published recipes share; see docs/map_priors.md.
"""

import math

from ml_collections import ConfigDict

SIZES = {
  'tiny': (128, 4, 4),
  'small': (256, 6, 4),
  'S': (384, 12, 6),
  'B': (768, 12, 12),
  'L': (1024, 24, 16),
  'XL': (1152, 28, 16),
}


def get_config(argument: str = 'ar') -> ConfigDict:
  name, _, size = argument.partition('+')
  width, layers, heads = SIZES[size or 'tiny']
  steps, peak = 4_000, 1e-3 if name == 'flow' else 2e-3
  config = {
    'steps': steps,
    'batch_size': 64,
    'view': 'z' if name == 'flow' else 'codes',
    'prior': {'name': name, 'width': width, 'layers': layers, 'heads': heads},
    'optimizer': {
      'name': 'adamw',
      'learning_rate': peak * math.sqrt(256 / width),
      'warmup': steps // 20,
      'b2': 0.95,
      'weight_decay': 0.0 if name == 'flow' else 0.05,
      'clip': 1.0,
    },
    'log_every': 100,
    'evaluate_every': 1_000,
    'checkpoint_every': 1_000,
  }
  return ConfigDict(config)
