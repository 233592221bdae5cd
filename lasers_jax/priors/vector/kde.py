"""Kernel density estimation in whitened space."""

import dataclasses
import math
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import logsumexp

from lasers_jax.coding.search import map_blocks, matmul
from lasers_jax.core.ranges import Positive, Range
from lasers_jax.priors.vector.base import (
  Prior,
  State,
  check_latents,
  check_points,
  fold_rows,
)
from lasers_jax.priors.vector.gaussian import LOG_2PI, principal_axes

# Latents that the bandwidth is chosen on.
_MOST_HELD = 2_000
_MOST_KEPT = 20_000
# Points whose distances are in memory.
_HELD_AT_ONCE = 32
_AT_ONCE = 512
# Two grids: by factors of 2 over all that may come, then finer about the best.
# They are of one length, for one compilation.
_COARSE = 2.0 ** np.arange(-12, 3)
_FINE = 2.0 ** (np.arange(-7, 8) / 8)


@dataclasses.dataclass(frozen=True)
class KDE(Prior):
  """Draws from normal kernels about latents, equally wide after whitening.

  Latents are whitened by their principal directions; those without variance
  come back as the mean, and densities are over the others, of a point's
  projection onto them. One bandwidth h, in whitened units: the kernel has h²
  times the covariance of the latents.

  Unless it is given, h is the one, to 9 %, of the largest mean log likelihood
  of held-out latents (at most 2,000, with the kernels of 20,000 others, so
  that it is somewhat wide where there are many more).

  Fitting takes O(n d² + d³), and less than O(10¹⁰ d) for the bandwidth; drawing
  O(d²) a row; densities O(n d) a point. The state holds the latents.

  Attributes:
    bandwidth: in whitened units; None chooses it.
    held_out: the fraction of latents by which the bandwidth is chosen.
  """

  bandwidth: Positive | None = None
  held_out: Annotated[float, Range(0, 1, '()')] = 0.1
  has_density: ClassVar[bool] = True

  def fit(self, latents, seed: int = 0) -> State:
    """Chooses the bandwidth on latents [n, d], n >= 2, that the seed draws."""
    latents = check_latents(latents, minimum=2)
    axes = principal_axes(latents)
    state = {
      'latents': latents,
      'mean': axes.mean,
      'directions': axes.directions,
      'deviations': axes.deviations,
    }
    h = self.bandwidth
    if h is None:
      h = self._choose(state, np.random.default_rng(seed))
    return {**state, 'bandwidth': np.float32(h)}

  def sample(self, state: State, key: Array, n: int) -> Array:
    which, about = jax.random.split(key)
    latents = jnp.asarray(state['latents'])
    row = jax.random.randint(which, (n,), 0, len(latents))
    deviations = state['bandwidth'] * state['deviations'][None]
    noise = jax.random.normal(about, (n, deviations.shape[1]), np.float32)
    noise = deviations * noise
    return latents[row] + matmul(noise, state['directions'].T)

  def check(self, state: State) -> None:
    super().check(state)
    d, r = state['directions'].shape
    if state['mean'].shape != (d,) or state['deviations'].shape != (r,):
      raise ValueError('axes of other latents')
    if not state['bandwidth'] > 0 or not (state['deviations'] > 0).all():
      raise ValueError('kernels without width')

  def log_prob(self, state: State, x) -> Array:
    x = check_points(x, len(state['mean']))
    return _log_density(state, jnp.asarray(x))

  def _choose(self, state: State, random: np.random.Generator) -> float:
    """The bandwidth under which held-out latents are most likely."""
    n = len(state['latents'])
    held = min(max(round(self.held_out * n), 1), n - 1)
    order = random.permutation(n)
    kept = order[: n - held][:_MOST_KEPT]
    held = order[n - held :][:_MOST_HELD]
    white = [_whiten(state, state['latents'][rows]) for rows in (kept, held)]
    best = 1.0
    for grid in (_COARSE, _FINE):
      bandwidths = (best * grid).astype(np.float32)
      best = float(bandwidths[int(jnp.argmax(_likelihood(*white, bandwidths)))])
    return best


def _whiten(state: State, x: Array) -> Array:
  """[m, d] -> [m, r], of mean 0 and variance 1 over the latents."""
  turned = matmul(x - state['mean'][None], state['directions'])
  return turned / state['deviations'][None]


def _squares(a: Array, b: Array) -> Array:
  """The squared distances [m, n] between [m, r] and [n, r].

  Direction by direction: a product would be some times as fast, and lose what a
  narrow kernel has to know.
  """

  def add(i: Array, total: Array) -> Array:
    return total + (a[i][:, None] - b[i][None]) ** 2

  a, b = a.T, b.T
  nothing = jnp.zeros((a.shape[1], b.shape[1]), a.dtype)
  return lax.fori_loop(0, len(a), add, nothing)


def _log_volume(h: Array, r: int) -> Array:
  """How much less than its exponent the log density of a kernel is."""
  return r * (jnp.log(h) + 0.5 * LOG_2PI)


@jax.jit
def _likelihood(kept: Array, held: Array, bandwidths: Array) -> Array:
  """The mean log density of held [m, r] under kernels on kept [n, r].

  For each of the bandwidths [c], and but for a constant.
  """
  scale = -0.5 / bandwidths[None, :, None] ** 2

  def densities(points: Array) -> Array:
    return logsumexp(scale * _squares(points, kept)[:, None], axis=2)

  total = map_blocks(densities, held, min(_HELD_AT_ONCE, len(held)))
  return total.mean(axis=0) - _log_volume(bandwidths, kept.shape[1])


@jax.jit
def _log_density(state: State, x: Array) -> Array:
  latents, h = jnp.asarray(state['latents']), state['bandwidth']

  def densities(points: Array) -> Array:
    def step(total: Array, rows: Array, counted: Array) -> Array:
      terms = -0.5 / h**2 * _squares(points, _whiten(state, rows))
      terms = jnp.where(counted[None], terms, -jnp.inf)
      return jnp.logaddexp(total, logsumexp(terms, axis=1))

    return fold_rows(step, jnp.full(len(points), -jnp.inf, np.float32), latents)

  density = map_blocks(densities, _whiten(state, x), min(_AT_ONCE, len(x)))
  log_volume = _log_volume(h, len(state['deviations']))
  log_volume += jnp.sum(jnp.log(state['deviations'])) + math.log(len(latents))
  return density - log_volume
