"""Normal distributions, and the moments that other priors share."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from lasers_jax.coding.search import matmul
from lasers_jax.errors import InputError
from lasers_jax.priors.vector.base import (
  Prior,
  State,
  check_latents,
  check_points,
  host_chunks,
)

# Directions of less variance than this fraction of the largest one count as
# constant: float32 latents do not say more about them.
NO_VARIANCE = 1e-10
LOG_2PI = math.log(2 * math.pi)
_JITTER = 1e-6  # of the mean variance
_JITTER_OF_NONE = 1e-12


@dataclasses.dataclass(frozen=True)
class Gaussian(Prior):
  """Draws from a normal distribution of the latents' mean and covariance.

  The covariance is a full matrix. If it is singular (n <= d, or dimensions that
  depend on each other), 1e-6 of the mean variance is added to each variance,
  and 1e-12 if all latents are equal: the state holds that as `jitter`, else 0.

  Fitting takes O(n d² + d³) in float64; drawing and densities O(d²) a row.
  """

  has_density: ClassVar[bool] = True

  def fit(self, latents, seed: int = 0) -> State:
    """Fits latents [n, d] by maximum likelihood; the seed changes nothing."""
    latents = check_latents(latents)
    mean, covariance = moments(latents)
    jitter = 0.0
    values = np.linalg.eigvalsh(covariance)
    if all_equal(latents):
      jitter = _JITTER_OF_NONE
    elif values[0] <= NO_VARIANCE * values[-1]:
      jitter = _JITTER * values.mean()
    factor = np.linalg.cholesky(covariance + jitter * np.eye(len(mean)))
    return {
      'mean': mean.astype(np.float32),
      'cholesky': factor.astype(np.float32),
      'jitter': np.float32(jitter),
    }

  def sample(self, state: State, key: Array, n: int) -> Array:
    noise = jax.random.normal(key, (n, len(state['mean'])), np.float32)
    return state['mean'][None] + matmul(noise, state['cholesky'].T)

  def check(self, state: State) -> None:
    super().check(state)
    if not (state['cholesky'].diagonal() > 0).all():
      raise ValueError('a direction without width')

  def log_prob(self, state: State, x) -> Array:
    x = check_points(x, len(state['mean']))
    return log_normal(jnp.asarray(x), state['mean'], state['cholesky'])


@dataclasses.dataclass(frozen=True)
class StandardNormal(Prior):
  """Draws from N(0, I), whatever the latents are: the prior of a VAE.

  Fitting takes no time, drawing and densities O(d) a row.
  """

  has_density: ClassVar[bool] = True

  def fit(self, latents, seed: int = 0) -> State:
    """Takes the width d of latents [n, d], and nothing else."""
    return {'mean': np.zeros(check_latents(latents).shape[1], np.float32)}

  def sample(self, state: State, key: Array, n: int) -> Array:
    return jax.random.normal(key, (n, len(state['mean'])), np.float32)

  def log_prob(self, state: State, x) -> Array:
    x = jnp.asarray(check_points(x, len(state['mean'])))
    return -0.5 * jnp.sum(x**2 + LOG_2PI, axis=1)


class Axes(NamedTuple):
  """Holds the principal directions of latents that have any variance."""

  mean: np.ndarray  # float32 [d]
  directions: np.ndarray  # float32 [d, r], orthonormal columns
  deviations: np.ndarray  # float32 [r], falling


def principal_axes(latents: np.ndarray) -> Axes:
  """Finds the principal directions of latents [n, d]; r <= min(n - 1, d).

  Those with less than 1e-10 of the largest variance are left out.

  Raises:
    InputError: all latents are equal.
  """
  if all_equal(latents):
    raise InputError(
      f'all {len(latents)} latents are equal: there is no direction to sample '
      'along'
    )
  mean, covariance = moments(latents)
  values, vectors = np.linalg.eigh(covariance)
  # By rank too: n latents span no more, and the rest is rounding.
  first = max(len(values) - len(latents) + 1, 0)
  varies = np.flatnonzero(values > NO_VARIANCE * values[-1])
  order = varies[varies >= first][::-1]
  return Axes(
    mean.astype(np.float32),
    vectors[:, order].astype(np.float32),
    np.sqrt(values[order]).astype(np.float32),
  )


def all_equal(latents: np.ndarray) -> bool:
  """Returns whether all latents are equal, but for rounding."""
  return bool((latents.min(axis=0) == latents.max(axis=0)).all())


def moments(latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the mean [d] and the covariance [d, d] (by 1/n), in float64."""
  mean = latents.mean(axis=0, dtype=np.float64)
  covariance = np.zeros((len(mean), len(mean)))
  for _, rows in host_chunks(latents):
    centred = rows - mean
    covariance += centred.T @ centred
  return mean, covariance / len(latents)


@jax.jit
def log_normal(x: Array, mean: Array, factor: Array) -> Array:
  """Returns the log density [m] of a normal distribution at x [m, d].

  mean: [d]; factor: [d, d], the lower Cholesky factor of the covariance.
  """
  with jax.default_matmul_precision('highest'):
    white = solve_triangular(factor, (x - mean[None]).T, lower=True)
  log_volume = jnp.sum(jnp.log(jnp.diagonal(factor)))
  log_volume += 0.5 * len(mean) * LOG_2PI
  return -0.5 * jnp.sum(white**2, axis=0) - log_volume
