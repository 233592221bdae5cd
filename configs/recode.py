"""The latents of a tokenizer that is trained already, coded anew.

  python train.py --config=configs/recode.py:lasers --workdir=runs/recoded \
    --config.network.pretrained=diffusers:/my/vae \
    --config.data.name=folder:/my/images

The argument names the bottleneck. Encoder and decoder are those of the
tokenizer (a folder of diffusers, a file of weights, a workdir or an exported
model), and stay as they are; the bottleneck learns on standardized latents
alone. With --config.loss.pixel=mse it learns through the decoder, too. Latents
of four channels are better coded in squares: --config.bottleneck.patch=2. Time:
that of the encoder; some minutes on a CPU for small tokenizers.
"""

from ml_collections import ConfigDict

from lasers_jax.experiment import presets


def get_config(argument: str = 'lasers') -> ConfigDict:
  config = {
    'steps': 2_000,
    'batch_size': 16,
    'data': {'name': 'folder:images', 'side': 128, 'resize': 128, 'workers': 0},
    'network': {'pretrained': '', 'frozen': True},
    'bottleneck': {'K': 1024},
    'loss': {'pixel': 'latent', 'weights': {'pixel': 1.0}},
    'optimizer': {
      'learning_rate': 3e-3,
      'dictionary_learning_rate': 3e-3,
      'warmup': 50,
      'ema': 0.99,
    },
    'evaluation': {'batch_size': 8},
    'evaluate_every': 1_000,
    'checkpoint_every': 500,
  }
  return ConfigDict(presets.complete(config, argument))
