"""Image autoencoders with coded latents: train, use, measure, count the bits.

  import lasers_jax as lj

  model = lj.train(lj.config('photos', bottleneck='vq'), 'runs/photos')
  codes = model.encode(images)

Letters in shapes: B batch, H and W sides of the latent, N = B·H·W sites, D
width of a latent vector, K atoms or codes, S atoms used for a site, f the
factor between the sides of an image and of its latent.
"""

import importlib
from typing import Any

__version__ = '0.2.0'

# The module of each name. It is imported at the first use of the name, so that
# `import lasers_jax` is fast.
_HOMES = {
  'DictionaryLearning': 'lasers_jax.estimator',
  'Hooks': 'lasers_jax.experiment.hooks',
  'InputError': 'lasers_jax.errors',
  'SparseCode': 'lasers_jax.coding',
  'TrainedModel': 'lasers_jax.experiment.model',
  'TrainingError': 'lasers_jax.errors',
  'batch_omp': 'lasers_jax.coding',
  'bottlenecks': 'lasers_jax',
  'config': 'lasers_jax.cli.configs',
  'draw': 'lasers_jax.experiment.generate',
  'evaluate': 'lasers_jax.experiment.evaluate',
  'load': 'lasers_jax.experiment.loading',
  'load_prior': 'lasers_jax.experiment.priors.model',
  'models': 'lasers_jax.experiment.shipped',
  'priors': 'lasers_jax',
  'train': 'lasers_jax.experiment.train',
}

__all__ = ['__version__', *_HOMES]


def __getattr__(name: str) -> Any:
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  home = _HOMES[name]
  if home == __name__:  # a package inside
    return importlib.import_module(f'{home}.{name}')
  return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
