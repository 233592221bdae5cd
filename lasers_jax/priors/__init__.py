"""Priors of latents: what draws new images from a decoder.

Those of one vector an image: `fit(latents [n, d], seed)` gives a state, and
`draw(prior, state, key, n)` draws from it.
"""

from lasers_jax.priors.vector import draw
from lasers_jax.priors.vector.flow import FlowMatching
from lasers_jax.priors.vector.gaussian import Gaussian, StandardNormal
from lasers_jax.priors.vector.gmm import GMM
from lasers_jax.priors.vector.histogram import SiteHistogram
from lasers_jax.priors.vector.kde import KDE
from lasers_jax.priors.vector.pmfs import PMFS
from lasers_jax.priors.vector.product import ProductPMF

__all__ = [
  'GMM',
  'KDE',
  'PMFS',
  'FlowMatching',
  'Gaussian',
  'ProductPMF',
  'SiteHistogram',
  'StandardNormal',
  'draw',
]
