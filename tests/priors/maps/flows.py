"""Small flows, what they are trained on, and their compiled methods."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from lasers_jax.priors.maps.flow import Flow

SIZES = {'sites': (4, 2), 'D': 3, 'width': 16, 'layers': 2, 'heads': 2}
SMALL = Flow(classes=5, **SIZES)
KEYS = jax.random.split(jax.random.key(7), 8)
LABELS = jnp.arange(8, dtype=jnp.int32) % 5
MIXING = np.array([[2.0, 0.5, 0], [0, 1, -0.3], [0.1, 0, 0.05]])


def latents(n=400, seed=0):
  """Correlated channels of unlike scales and means: [n, 4, 2, 3]."""
  x = np.random.default_rng(seed).standard_normal((n, 4, 2, 3))
  return (x @ MIXING + [40, -1, 0.2]).astype(np.float32)


@functools.cache
def start(flow):
  """Variables that normalise latents, with no parameter at 0."""

  @jax.jit
  def noisy(view):
    labels = jnp.zeros((1,), jnp.int32)
    variables = flow.init(jax.random.key(0), view, labels, train=False)
    flat, unflatten = jax.flatten_util.ravel_pytree(variables['params'])
    flat += 0.2 * jax.random.normal(jax.random.key(1), flat.shape)
    return {**variables, 'params': unflatten(flat)}

  return fit(noisy(latents(1)), flow, latents())


def fit(variables, flow, view):
  _, found = flow.apply(
    variables, view, method='initialize', mutable=['params', 'codebook']
  )
  return {**variables, **found}


@functools.partial(jax.jit, static_argnums=(0, 4))
def draw(flow, variables, keys, labels, drawing):
  return flow.apply(variables, keys, labels, drawing, method='draw')


@functools.partial(jax.jit, static_argnums=0)
def losses_at(flow, variables, view, labels, times, keys):
  return flow.apply(variables, view, labels, times, keys, method='losses_at')


def statistics(flow, view):
  """The variables of normalisation alone: all that `normalized` reads."""
  codebook = {
    'mean': jnp.zeros(flow.D),
    'whitening': jnp.eye(flow.D),
    'coloring': jnp.eye(flow.D),
  }
  return fit({'codebook': codebook}, flow, view)


class Oracle(Flow):
  """Knows the latents: those of `view`, which is all there is."""

  def _output(self, mixed, times, labels, train=False):
    x = jnp.tile(self.normalized(latents(1)), (len(mixed), 1, 1, 1))
    if self.predict == 'x':
      return x
    _, level = self.path(times[:, None, None, None])
    return (mixed - x) / level
