"""A codec for photographs, of your own images: one model, many rates.

  python train.py --config=configs/codec.py:lasers --workdir=runs/codec \
    --config.data.name=folder:/my/images
  python codec.py curve --model=runs/codec --quantizer_step=0.1,0.2,0.4 \
    --context other/*.png

The argument chooses the bottleneck:

  lasers   sparse codes with a price (`priced`): integers over K = D = 768 atoms
           of 16 x 16 pixels
  entropy  integers whose bits are a loss, f = 8
  sets     `lasers` of S = 4 atoms a site, by sets: --S=1,2,3,4

and others by their own names, f = 8. In the first two, blocks start as the
cosines of JPEG, a filter of the decoded pixels follows, and training shows the
decoder many steps; others have the network of `entropy` by +block, as in
sets+block. Time: some half an hour on one CPU core. To expect:
docs/results/files.md.
"""

from ml_collections import ConfigDict

from lasers_jax.core.trees import merge
from lasers_jax.experiment import presets

USUAL = {
  'network': {
    'name': 'vqvae',
    'D': 48,
    'f': 8,
    'residual_channels': 64,
    'residual_blocks': 3,
  },
  'bottleneck': {'K': 1024},
}
BLOCKS = {
  'batch_size': 8,
  'data': {'side': 96},  # what a filter sees of edges is not those of crops
  'network': {'name': 'block', 'D': 192, 'filter_blocks': 5},
  'bottleneck': {'limit': 127, 'max_step_scale': 6.0},
  'optimizer': {'learning_rate': 5e-4},
}
PRICED = merge(
  BLOCKS,
  {
    'network': {'f': 16, 'D': 768, 'channels': 64},
    'bottleneck': {'limit': 255},  # white, in fine steps
  },
)
ENTROPY = {**BLOCKS, 'loss': {'weights': {'rate': 8e-5}}}
PREFIXES = {
  **USUAL,
  'bottleneck': {
    'K': 1024,
    'S': 4,
    'coefficient_bits': 2,
    'pursuit': 'rounded',
    'progressive': True,
    'sparsity_dropout': 0.75,
  },
}


# Arguments that are not the name of their bottleneck.
NAMES = {'lasers': 'priced', 'sets': 'lasers'}
OWN = {'priced': PRICED, 'entropy': ENTROPY, 'lasers': PREFIXES}


def get_config(argument: str = 'lasers') -> ConfigDict:
  config = {
    'steps': 6_000,
    'batch_size': 16,
    'data': {
      'name': 'folder:images',
      'side': 64,
      'resize': 128,  # the shorter side, before the crop
      'workers': 0,  # 8 or so for a set that does not fit in memory
    },
    'optimizer': {'warmup': 200, 'clip': 1.0},
    'evaluation': {'batch_size': 32},
    'log_every': 100,
    'evaluate_every': 1_500,
    'checkpoints_kept': 1,
  }
  first, *parts = argument.split('+')
  name = NAMES.get(first, first)
  own = OWN.get(name, USUAL)
  if 'block' in parts:
    own = {**BLOCKS, 'bottleneck': own['bottleneck']}
    parts.remove('block')
  argument = '+'.join([name, *parts])
  return ConfigDict(presets.complete(merge(config, own), argument))
