"""The settings of papers at 256 pixels, by bottleneck and by part.

All are for a batch of 256. A paper's squared error of images in [-1, 1] weighs
four times as much here, where they are in [0, 1], and its absolute error twice.
What a paper trains with a smaller batch has its rate raised in proportion, and
its discriminator starts after as many images.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Section = Mapping[str, Any]


def of_bottleneck(name: str, parts: Iterable[str]) -> Section:
  """Returns the sections of a bottleneck: VQGAN's where no paper has another.

  Args:
    parts: those that come after it, as in `decoders`. With a diffusion decoder
      the loss of images is SWYCC's.
  """
  sections = dict(_BOTTLENECKS.get(name, _VQGAN))
  if _DIFFUSION & set(parts):
    weights = {**sections['loss']['weights'], 'pixel': _SQUARED}
    sections['loss'] = {'pixel': 'mse', 'weights': weights}
  return sections


def of_parts(name: str, parts: Iterable[str]) -> list[Section]:
  """Returns what overrules parts after a bottleneck, in their order."""
  perceptual = 0.1 if name == 'none' else 1.0
  chosen = {
    'lpips': [_weights(perceptual=perceptual)],
    'gan': [
      _weights(perceptual=perceptual),
      {'discriminator': {**_PATCHGAN, **_GANS.get(name, _GANS['vq'])}},
    ],
    **{part: [_REFINED] for part in _DIFFUSION},
  }
  if name == 'none':
    chosen['gan'].append({'optimizer': {'b1': 0.0, 'b2': 0.99}})
  return [section for part in parts for section in chosen.get(part, ())]


def _weights(**weights: float) -> Section:
  return {'loss': {'weights': weights}}


_DIFFUSION = {'swycc', 'swycc-mse', 'diffusion'}
_SQUARED, _ABSOLUTE = 4.0, 2.0  # the weights of a paper's loss of 1
# VQGAN's optimizer; the rate is MaskGIT's and IBQ's, of the same batch.
_ADAM = {'learning_rate': 1e-4, 'final': 1.0, 'b1': 0.5, 'b2': 0.9}

# P. Esser et al., arXiv 2012.09841: f = 16, the defaults of `resnet`. Codes
# learn as the library's do, by moving averages and revival.
_VQGAN = {
  'network': {'name': 'resnet', 'D': 256, 'dtype': 'bfloat16'},
  'bottleneck': {'K': 1024},
  'loss': {'pixel': 'l1', 'weights': {'pixel': _ABSOLUTE}},
  'optimizer': _ADAM,
}

_BOTTLENECKS: dict[str, Section] = {
  # The authors' successor of LASERS (github.com/helloimlixin/laser): RQ-VAE's
  # network, f = 32, and its recipe (D. Lee et al., arXiv 2203.01941).
  'lasers': {
    'network': {**_VQGAN['network'], 'multipliers': (1, 1, 2, 2, 4, 4)},
    'bottleneck': {'K': 2048, 'S': 2, 'coefficient_bits': 10},
    'loss': {
      'pixel': 'mse',
      'weights': {
        'pixel': _SQUARED,
        'dictionary': 0.25,
        'commitment': 0.25,
      },
    },
    'optimizer': {
      **_ADAM,
      'learning_rate': 8e-5,
      'dictionary_learning_rate': 8e-5,
      'warmup': 2_000,
    },
  },
  # R. Rombach et al., arXiv 2112.10752: KL-regularized, f = 8, d = 4. There the
  # divergence is a sum over the latent, of weight 1e-6 beside a sum over
  # pixels; here it is a mean over sites beside a mean over pixels.
  'kl': {
    'network': {
      **_VQGAN['network'],
      'D': 4,
      'multipliers': (1, 2, 4, 4),
      'attention': (),
    },
    'loss': {
      'pixel': 'l1',
      'weights': {'pixel': _ABSOLUTE, 'kl': 1e-6 * 32**2 / (3 * 256**2)},
    },
    'optimizer': _ADAM,
  },
  # F. Shi et al., arXiv 2412.02692, which divides the rate by ten after 76 and
  # after 91 % of the steps, where here it decays with a cosine.
  'ibq': {
    'network': {**_VQGAN['network'], 'blocks': 4},
    'bottleneck': {'K': 2**18},
    'loss': {'pixel': 'l1', 'weights': {'pixel': _ABSOLUTE}},
    'optimizer': {**_ADAM, 'final': 0.01},
  },
  # The autoencoder of SWYCC (V. Birodkar et al., arXiv 2409.02529), with a
  # latent of 8 times 8 pixels. Multipliers are MaskGIT's less a level: assumed.
  'none': {
    'network': {
      'name': 'maskgit',
      'D': 8,
      'multipliers': (1, 1, 2, 4),
      'dtype': 'bfloat16',
    },
    'loss': {'pixel': 'mse', 'weights': {'pixel': _SQUARED}},
    'optimizer': {'learning_rate': 1e-4, 'final': 1.0},
  },
}

_PATCHGAN = {'learning_rate': 1e-4, 'warmup': 0, 'adaptive': True}
_GANS: dict[str, Section] = {
  # VQGAN's weight. The start is that of LlamaGen (P. Sun et al., arXiv
  # 2406.06525), 20,000 batches of 128; VQGAN's own is 250,001 batches of 12.
  'vq': {'weight': 0.8, 'start': 10_000},
  'lasers': {
    'num_downsamples': 2,
    'weight': 0.75,
    'start': 0,
    'learning_rate': 8e-5,
  },
  'kl': {'weight': 0.5, 'start': 50_001},
  # The released code has a logistic loss of the autoencoder beside the hinge.
  'ibq': {'weight': 0.1, 'adaptive': False, 'lecam': 0.05, 'start': 0},
  # MaskGIT's released settings; its penalty, of 10, is not halved.
  'none': {
    'name': 'stylegan',
    'num_downsamples': 6,
    'loss': 'non_saturating',
    'weight': 0.1,
    'adaptive': False,
    'r1': 20.0,
    'start': 0,
    'b1': 0.0,
    'b2': 0.99,
  },
}

# SWYCC: four levels, attention at 16 x 16, a linear warm-up and a cosine. Its
# widths are not known: channels, multipliers and blocks are assumed.
_REFINED = {
  'decoder': {
    'channels': 128,
    'multipliers': (1, 2, 4, 8),
    'num_downsamples': 1,  # so that the levels have 128, 64, 32 and 16 pixels
    'blocks': 2,
    'attention': (3,),
  },
  'optimizer': {
    'learning_rate': 1e-4,
    'warmup': 10_000,
    'final': 0.0,
    'clip': 1.0,
  },
}
