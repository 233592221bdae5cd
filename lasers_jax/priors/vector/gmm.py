"""Gaussian mixtures with full covariances, fitted by EM.

The ex-post density of RAE (P. Ghosh et al., ICLR 2020), whose ten full
components are the usual rival of other priors. Batch by batch it is the
online EM of O. Cappé and E. Moulines (J. R. Stat. Soc. B 71, 2009).
"""

import dataclasses
import functools
import logging
import math
import warnings
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lasers_jax.coding.search import in_blocks
from lasers_jax.core.ranges import Amount, Count
from lasers_jax.errors import InputError
from lasers_jax.priors.vector.base import (
  Prior,
  State,
  check_latents,
  check_points,
)
from lasers_jax.priors.vector.gaussian import NO_VARIANCE, log_normal

WAYS = ('full', 'batches')
# Added to the variances of all components, in units of those within clusters.
_VARIANCE = 1e-6
# Of the trace of a covariance: what keeps its factor in float32 from failing.
_JITTER = 3e-7
# Step t of online EM weighs (t + 2)^-0.6. Any power in (0.5, 1] converges; near
# 1 the start is never forgotten, near 0.5 the last batches count for too much.
_POWER = -0.6
_SAMPLE = 20_000  # latents that K-means sees
_LEAST = 1e-18  # a deviation whose square float32 has still


class Mixture(NamedTuple):
  """Holds a mixture of K components, in d dimensions."""

  weights: Array  # [K]
  means: Array  # [K, d]
  covariances: Array  # [K, d, d]


class Frame(NamedTuple):
  """Coordinates z = (x - mean) @ to, of unit covariance within clusters."""

  mean: np.ndarray  # [d]
  to: np.ndarray  # [d, d]
  back: np.ndarray  # [d, d], its inverse
  rounding: float = 0.0  # of the latents: what float32 does not resolve


@dataclasses.dataclass(frozen=True)
class GMM(Prior):
  """Draws from a mixture of K Gaussians with full covariances.

  An iteration costs O(n d² K), and O(d³ K) for the factors; a draw O(d² K), as
  every factor is multiplied with every row, and a density O(d² K).

  The state is weights [K], means [K, d] and cholesky [K, d, d], the lower
  factors of the covariances.

  Attributes:
    components: K.
    em: 'full' is scikit-learn's GaussianMixture, in float64, which requires a
      copy of the latents and some [n, d] more. 'batches' is for more than a
      million latents: it requires a few [K, d, d] and a batch beside them, may
      run on an accelerator, and comes near in a few passes.
    iterations: of EM, at most; passes over the latents for 'batches'.
    nats: EM ends once the mean log-likelihood of a latent rises by fewer nats
      in an iteration; for 'batches' as seen during a pass.
    batch_size: of 'batches', at most; one batch of all latents is plain EM.
  """

  has_density: ClassVar[bool] = True
  components: Count = 10
  em: str = 'full'
  iterations: Count = 200
  nats: Amount = 1e-3
  batch_size: Count = 4096

  def __post_init__(self):
    super().__post_init__()
    if self.em not in WAYS:
      raise InputError(f'em must be one of {WAYS}: {self.em!r}')

  def fit(self, latents, seed: int = 0) -> State:
    """Fits the mixture to latents float32 [n, d].

    Raises:
      InputError: fewer latents than components, or than 2; or see
        `check_latents`.
    """
    latents = check_latents(latents)
    n, minimum = len(latents), max(self.components, 2)
    if n < minimum:
      raise InputError(
        f'{n} latents are too few for a mixture of {self.components} '
        f'components: it takes {minimum} at least, or fewer components'
      )
    fit = _fit_whole if self.em == 'full' else _fit_in_batches
    mixture = fit(self, latents, seed)
    factors = np.linalg.cholesky(mixture.covariances)
    return {
      'weights': mixture.weights.astype(np.float32),
      'means': mixture.means.astype(np.float32),
      'cholesky': factors.astype(np.float32),
    }

  def sample(self, state: State, key: Array, n: int) -> Array:
    """Draws float32 [n, d]: a component by its weight, then from it."""
    weights, means, factors = _parts(state)
    of_component, of_noise = jax.random.split(key)
    chosen = jax.random.categorical(of_component, jnp.log(weights), shape=(n,))
    noise = jax.random.normal(of_noise, (n, means.shape[1]), np.float32)

    def place(k: int, x: Array) -> Array:
      # Rows of other components are still noise, or done: one array does, and
      # a gather of factors would be [n, d, d].
      drawn = means[k][None] + x @ factors[k].T
      return jnp.where((chosen == k)[:, None], drawn, x)

    with jax.default_matmul_precision('highest'):
      return lax.fori_loop(0, self.components, place, noise)

  def check(self, state: State) -> None:
    super().check(state)
    weights, means, factors = (np.asarray(x) for x in _parts(state))
    k, d = means.shape
    if weights.shape != (k,) or factors.shape != (k, d, d):
      raise ValueError('parts of other mixtures')
    if k != self.components or (weights < 0).any() or not weights.any():
      raise ValueError('weights that are none')
    if not (np.diagonal(factors, axis1=1, axis2=2) > 0).all():
      raise ValueError('components without width')

  def log_prob(self, state: State, x) -> Array:
    """Returns the log-density of x [m, d] in nats, float32 [m]."""
    parts = _parts(state)
    return _log_density(*parts, check_points(x, parts[1].shape[1]))


def _parts(state: State) -> list[Array]:
  return [jnp.asarray(state[x]) for x in ('weights', 'means', 'cholesky')]


@jax.jit
def _log_density(
  weights: Array, means: Array, factors: Array, x: Array
) -> Array:
  def density(rows: Array) -> Array:
    joint = lax.map(
      lambda part: part[0] + log_normal(rows, *part[1:]),
      (jnp.log(weights), means, factors),
    )
    return jax.nn.logsumexp(joint, axis=0)

  return in_blocks(density, x, sum(means.shape))


def _fit_whole(settings: GMM, latents: np.ndarray, seed: int) -> Mixture:
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.mixture import GaussianMixture

  labels = _clusters(settings.components, latents, seed)
  frame = within_clusters(latents, labels)
  z = (latents - frame.mean) @ frame.to
  start = _of_clusters(z, labels, settings.components, 0)
  mixture = GaussianMixture(
    settings.components,
    covariance_type='full',
    tol=settings.nats,
    reg_covar=_VARIANCE,
    max_iter=settings.iterations,
    weights_init=start.weights / start.weights.sum(),
    means_init=start.means,
    precisions_init=np.linalg.inv(start.covariances),
  )
  with warnings.catch_warnings():
    # That it was stopped by `iterations` is in the line below.
    warnings.simplefilter('ignore', ConvergenceWarning)
    mixture.fit(z)
  end = 'converged' if mixture.converged_ else 'stopped'
  likelihood = mixture.lower_bound_ + np.linalg.slogdet(frame.to)[1]
  _log(end, 'iterations', mixture.n_iter_, likelihood)
  found = Mixture(mixture.weights_, mixture.means_, mixture.covariances_)
  return _leave(found, frame)


def _log(event: str, unit: str, count: int, likelihood: float) -> None:
  line = 'mixture %s after %d %s: %.3f nats a latent'
  logging.info(line, event, count, unit, likelihood)


def _fit_in_batches(settings: GMM, latents: np.ndarray, seed: int) -> Mixture:
  rng = np.random.default_rng(seed)
  frame, mixture = _start(settings.components, latents, rng)
  batches = -(-len(latents) // settings.batch_size)
  size = -(-len(latents) // batches)
  volume = np.linalg.slogdet(frame.to)[1]
  steps, before, event = 0, -math.inf, 'stopped'
  for i in range(settings.iterations):
    # All latents once; the last batch is filled up with some of the first.
    order = np.resize(rng.permutation(len(latents)), (batches, size))
    seen = 0.0
    for rows in order:
      rate = (steps + 2) ** _POWER if batches > 1 else 1.0
      mixture, likelihood = _update(mixture, latents[rows], frame, rate)
      seen, steps = seen + float(likelihood) / batches, steps + 1
    if seen - before < settings.nats:
      event = 'converged'
      break
    before = seen
    if i % 10 == 0:
      _log('goes on', 'passes', i + 1, seen + volume)
  _log(event, 'passes', i + 1, seen + volume)
  # As the last iteration had them; what rounding made unequal on both sides of
  # the diagonal would grow in the frame of latents.
  covariances = regularized(np.asarray(mixture.covariances, np.float64))
  covariances = (covariances + covariances.swapaxes(1, 2)) / 2
  return _leave(mixture._replace(covariances=covariances), frame)


def _clusters(k: int, latents: np.ndarray, seed: int) -> np.ndarray:
  """Finds clusters by K-means: the number of each latent's, int [n]."""
  from sklearn.cluster import KMeans
  from sklearn.exceptions import ConvergenceWarning

  # Scikit-learn's mixture starts from the same, of the same seed.
  kmeans = KMeans(k, n_init=1, random_state=np.random.RandomState(seed))
  with warnings.catch_warnings():
    # It may find fewer clusters, where latents are equal.
    warnings.simplefilter('ignore', ConvergenceWarning)
    return kmeans.fit_predict(latents - latents.mean(0, dtype=np.float64))


def within_clusters(latents: np.ndarray, labels: np.ndarray) -> Frame:
  """Finds the frame in which clusters of latents [n, d] have unit covariance.

  EM commutes with it, but for the terms that keep covariances from being
  singular, which are then as small as the latents are; and float32 suffices
  for latents that are far from zero, or hardly vary in some direction. O(n d²).

  Args:
    labels: the number of each latent's cluster, int [n].
  """
  mean = latents.mean(axis=0, dtype=np.float64)
  largest = max(float(latents.max()), -float(latents.min()))
  rounding = float(np.finfo(np.float32).eps) * largest or _LEAST
  centred = latents - mean
  spread = np.einsum('ij,ij->', centred, centred) / centred.size
  for label in np.unique(labels):
    centred[labels == label] -= centred[labels == label].mean(axis=0)
  covariance = centred.T @ centred / len(latents)
  values, vectors = np.linalg.eigh(covariance)
  # Where all clusters are points, their distances say how large latents are.
  most = values[-1] if values[-1] > NO_VARIANCE * spread else spread
  scale = np.sqrt(np.maximum(values, NO_VARIANCE * most + rounding**2))
  return Frame(mean, vectors / scale, (vectors * scale).T, rounding)


def _of_clusters(
  z: np.ndarray, labels: np.ndarray, k: int, more: int
) -> Mixture:
  """The weights, means and covariances of clusters of rows [n, d].

  Each has `more` rows of unit covariance beside its own.
  """
  clusters = [_cluster(z[labels == j], more) for j in range(k)]
  means, covariances = map(np.stack, zip(*clusters, strict=True))
  # One that is empty can still be taken by rows.
  counts = np.bincount(labels, minlength=k) + 10 * np.finfo(float).eps
  covariances += _VARIANCE * np.eye(z.shape[1])
  return Mixture(counts / len(z), means, covariances)


def _cluster(rows: np.ndarray, more: int) -> tuple[np.ndarray, np.ndarray]:
  n, d = rows.shape
  mean = rows.sum(axis=0) / max(n, 1)
  centred = rows - mean
  covariance = centred.T @ centred + more * np.eye(d)
  return mean, covariance / max(n + more, 1)


def _start(
  k: int, latents: np.ndarray, rng: np.random.Generator
) -> tuple[Frame, Mixture]:
  """Starts from the clusters that K-means finds among some latents."""
  count = min(len(latents), _SAMPLE)
  sample = latents[rng.choice(len(latents), count, replace=False)]
  labels = _clusters(k, sample, int(rng.integers(2**31)))
  frame = within_clusters(sample, labels)
  z = (sample - frame.mean) @ frame.to
  mixture = _of_clusters(z, labels, k, z.shape[1])
  return frame, Mixture(*(jnp.asarray(x, jnp.float32) for x in mixture))


@functools.partial(jax.jit, donate_argnums=0)
def _update(
  mixture: Mixture, latents: Array, frame: Frame, rate: float
) -> tuple[Mixture, Array]:
  """Takes a step of online EM: the statistics of a batch [m, d] weigh `rate`.

  The running averages are kept as weights, means and covariances about these
  means, where those of x xᵀ would cancel.

  Returns:
    The mixture, and the mean log-likelihood of the batch before the step.
  """

  def expect(part: tuple[Array, Array, Array]) -> Array:
    weight, mean, covariance = part
    factor = jnp.linalg.cholesky(regularized(covariance))
    return jnp.log(weight) + log_normal(z, mean, factor)

  def maximize(part: tuple[Mixture, Array]) -> Mixture:
    (weight, mean, covariance), fractions = part
    weight = (1 - rate) * weight + rate * jnp.sum(fractions)
    pull = rate * fractions / jnp.maximum(weight, 1e-30)
    centred = z - mean[None]
    move = pull @ centred
    scatter = (centred * pull[:, None]).T @ centred
    covariance = (1 - jnp.sum(pull)) * covariance + scatter
    return Mixture(weight, mean + move, covariance - jnp.outer(move, move))

  with jax.default_matmul_precision('highest'):
    z = (latents - frame.mean[None]) @ frame.to
    joint = lax.map(expect, tuple(mixture))  # [K, m]
    likelihood = jax.nn.logsumexp(joint, axis=0)
    fractions = jnp.exp(joint - likelihood[None]) / len(z)
    return lax.map(maximize, (mixture, fractions)), jnp.mean(likelihood)


def regularized(covariance):
  """Adds to covariances [..., d, d] in a frame, to make them definite.

  Takes arrays of JAX and of NumPy.
  """
  d = covariance.shape[-1]
  trace = covariance.trace(axis1=-2, axis2=-1)[..., None, None]
  return covariance + _JITTER * (1 + trace) * np.eye(d, dtype=np.float32)


def _leave(mixture: Mixture, frame: Frame) -> Mixture:
  """Brings a mixture back from the frame, in float64."""
  weights, means, covariances = (np.asarray(x, np.float64) for x in mixture)
  covariances = frame.back.T @ covariances @ frame.back
  d = len(frame.mean)
  return Mixture(
    weights,
    frame.mean + means @ frame.back,
    covariances + frame.rounding**2 * np.eye(d),
  )
