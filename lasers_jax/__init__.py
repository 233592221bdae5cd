"""Image autoencoders with coded latents: train, evaluate, count the bits.

Letters in shapes: B batch, H and W sides of the latent, N = B·H·W sites, D
width of a latent vector, K atoms or codes, S atoms used for a site, f the
factor between the sides of an image and of its latent.
"""

import importlib

__all__ = ['DictionaryLearning']


def __getattr__(name: str):
  # Only who asks for the estimator waits for scikit-learn.
  if name == 'DictionaryLearning':
    return importlib.import_module('lasers_jax.estimator').DictionaryLearning
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
