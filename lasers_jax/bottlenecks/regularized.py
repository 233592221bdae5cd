"""Plain numbers, with a loss that holds their distribution near N(0, I).

WAE-MMD: I. Tolstikhin et al., arXiv 1711.01558. InfoVAE: S. Zhao et al., arXiv
1706.02262. RAE-L2: P. Ghosh et al., arXiv 1903.12436.
"""

from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from lasers_jax.bottlenecks.base import Latent, site_mean
from lasers_jax.bottlenecks.continuous import KL, Identity
from lasers_jax.coding import squared_distances
from lasers_jax.core.ranges import Amount, Range

# Multiples of 2 D, the squared distance of two draws of N(0, I): WAE's.
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def prior_mmd(z: Array, key: Array, mask: Array | None = None) -> Array:
  """Estimates the squared MMD of the sites of z and N(0, I), without bias.

  The kernel is the sum of c / (c + |x - y|²), c = 2 D s for s in SCALES (WAE,
  section 4). N(0, I) is represented by as many draws as there are sites; all
  pairs are compared, so memory is quadratic in their number.

  Args:
    z: [..., D].
    mask: bool [...], the sites that count.

  Returns:
    A scalar; it may be below zero, as it is unbiased.
  """
  d = z.shape[-1]
  x = z.reshape(-1, d).astype(jnp.float32)
  y = jax.random.normal(key, x.shape, jnp.float32)
  n = len(x)
  counted = jnp.ones(n, bool) if mask is None else mask.reshape(-1)
  weights = counted.astype(jnp.float32)
  total = jnp.sum(weights)
  others = 1 - jnp.eye(n, dtype=jnp.float32)
  # Without each with itself, which would be a bias.
  pairs = weights[:, None] * weights[None] * others
  own = jnp.sum(pairs * _kernel(x, x)) / jnp.maximum(total * (total - 1), 1)
  prior = jnp.sum(others * _kernel(y, y)) / max(n * (n - 1), 1)
  crossed = jnp.sum(weights[:, None] * _kernel(x, y))
  return own + prior - 2 * crossed / (n * jnp.maximum(total, 1))


def _kernel(x: Array, y: Array) -> Array:
  distances = squared_distances(x, y)
  scales = [2 * x.shape[1] * scale for scale in SCALES]
  return jnp.asarray(sum(scale / (scale + distances) for scale in scales))


class WAE(Identity):
  """Passes z on, and holds the distribution of the sites near N(0, I).

  Losses: `mmd`, of `prior_mmd`; in evaluation always with the same draws.
  """

  loss_weights: ClassVar = {'mmd': 1.0}

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    latent = super().__call__(z, train, mask)
    key = self.make_rng('bottleneck') if train else jax.random.key(0)
    return latent.replace(losses={'mmd': prior_mmd(z, key, mask)})


class InfoVAE(KL):
  """Draws as `KL` does, and holds the distribution of draws near N(0, I), too.

  Losses: `info` = (1 - alpha) kl + (alpha + lambda_ - 1) mmd, of `KL` and of
  `prior_mmd` (equation 6 there, as a loss). With alpha + lambda_ below 1 the
  second weight would drive draws away from N(0, I): that is an error.

  Attributes:
    alpha, lambda_: the letters of the paper.
  """

  loss_weights: ClassVar = {'info': 1e-4}

  alpha: Annotated[float, Range(high=1)] = 0.0
  lambda_: Amount = 100.0

  def check(self) -> None:
    super().check()
    if self.alpha + self.lambda_ <= 1:
      raise ValueError(
        'alpha + lambda_ must be above 1, or the MMD is made large: '
        f'{self.alpha:g} + {self.lambda_:g}'
      )

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    latent = super().__call__(z, train, mask)
    key = self.make_rng('bottleneck') if train else jax.random.key(0)
    mmd = prior_mmd(latent.quantized, key, mask)
    info = (1 - self.alpha) * latent.losses['kl']
    info += (self.alpha + self.lambda_ - 1) * mmd
    return latent.replace(losses={'info': info})


class RAE(Identity):
  """Passes z on, and penalizes its norm (RAE-L2).

  The method penalizes the decoder's weights, too: `decoder_norm` of the loss.

  Losses: `norm`, |z|²/2, a sum over D and a mean over sites.
  """

  loss_weights: ClassVar = {'norm': 1e-4}

  def __call__(
    self, z: Array, train: bool, mask: Array | None = None
  ) -> Latent:
    latent = super().__call__(z, train, mask)
    numbers = z.astype(jnp.float32)
    norm = site_mean(jnp.sum(numbers**2, axis=-1) / 2, mask)
    return latent.replace(losses={'norm': norm})
