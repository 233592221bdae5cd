"""A small model of the flow that carries noise to latents.

Y. Lipman et al., "Flow matching for generative modeling" (arXiv 2210.02747),
and X. Liu et al., "Flow straight and fast" (arXiv 2209.03003): on the straight
way x_t = (1 - t) x_0 + t x_1 from noise x_0 to a latent x_1, a network learns
the velocity x_1 - x_0; its mean given x_t is a flow that turns the one
distribution into the other.
"""

import dataclasses
import functools
import logging
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from lasers_jax.coding.search import in_blocks
from lasers_jax.core import averages
from lasers_jax.core.ranges import Count, Positive
from lasers_jax.priors.vector.base import Prior, State, check_latents
from lasers_jax.priors.vector.gaussian import moments

_FREQUENCIES = 8  # of t, each as a sine and a cosine
_STRETCH = 100  # steps of training in one call
_EMA = 0.999  # decay of the averaged weights


class Training(NamedTuple):
  """Holds the variables of training."""

  params: State
  averaged: State
  optimizer: optax.OptState
  step: Array


@dataclasses.dataclass(frozen=True)
class FlowMatching(Prior):
  """Draws by a flow from noise to latents, which a residual network learns.

  With w = width, a step of training costs O(batch_size w (d + depth w)) and a
  draw O(sampling_steps w (d + depth w)), whatever n is. It has no `log_prob`:
  that takes the divergence of the network, integrated along the flow.

  The state is the averaged weights, 'first/kernel', 'layer0/kernel', ...,
  'last/kernel' with a bias each, and mean and scale [d] of the latents.

  Attributes:
    width: of the hidden vectors.
    depth: residual layers.
    steps: of training by Adam, with warm-up and cosine decay.
    batch_size: latents a step, drawn with replacement.
    learning_rate: at its highest.
    sampling_steps: of a draw, each by the midpoint rule: two evaluations.
  """

  width: Count = 512
  depth: Count = 4
  steps: Count = 4000
  batch_size: Count = 512
  learning_rate: Positive = 1e-3
  sampling_steps: Count = 50

  def fit(self, latents, seed: int = 0) -> State:
    """Trains on latents float32 [n, d]; InputError as of `check_latents`."""
    latents = check_latents(latents)
    mean, covariance = moments(latents)
    mean = mean.astype(np.float32)
    scale = np.sqrt(covariance.diagonal()).astype(np.float32)
    rng = np.random.default_rng(seed)
    of_start, key = jax.random.split(jax.random.key(seed))
    params = init_network(of_start, latents.shape[1], self.width, self.depth)
    training = Training(
      params,
      jax.tree.map(jnp.copy, params),  # both are donated
      self._optimizer().init(params),
      jnp.zeros((), jnp.int32),
    )
    # A dimension that never changes stays at its mean.
    divisor = np.where(scale > 0, scale, 1)
    for start in range(0, self.steps, _STRETCH):
      steps = min(_STRETCH, self.steps - start)
      rows = rng.integers(len(latents), size=(steps, self.batch_size))
      batches = (latents[rows] - mean) / divisor
      training, loss = _train(self, training, batches, key)
      if start % (10 * _STRETCH) == 0 or start + steps == self.steps:
        line = 'flow: step %d of %d, loss %.4f'
        logging.info(line, start + steps, self.steps, float(loss))
    return {**jax.device_get(training.averaged), 'mean': mean, 'scale': scale}

  def sample(self, state: State, key: Array, n: int) -> Array:
    """Draws float32 [n, d]: noise, carried along the flow from t = 0 to 1."""
    noise = jax.random.normal(key, (n, len(state['mean'])), np.float32)
    span = 1 / self.sampling_steps

    def step(x: Array, t: Array) -> tuple[Array, None]:
      middle = x + span / 2 * self.velocity(state, x, t)
      return x + span * self.velocity(state, middle, t + span / 2), None

    def integrate(x: Array) -> Array:
      times = jnp.arange(self.sampling_steps, dtype=np.float32) * span
      return lax.scan(step, x, times)[0]

    z = in_blocks(integrate, noise, max(self.width, noise.shape[1]))
    return jnp.asarray(state['mean'])[None] + z * state['scale'][None]

  def velocity(self, state: State, x: Array, t: Array) -> Array:
    """Returns the velocity predicted at x [n, d] and t, scalar or [n].

    x and the velocity [n, d] are in units in which latents have mean 0 and
    standard deviation 1.
    """
    t = jnp.broadcast_to(t, len(x))[:, None]
    frequencies = jnp.arange(1, _FREQUENCIES + 1, dtype=np.float32)
    angles = math.pi * t * frequencies[None]
    time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)

    def dense(name: str, *parts: Array) -> Array:
      x = jnp.concatenate(parts, axis=1)
      return x @ state[f'{name}/kernel'] + state[f'{name}/bias'][None]

    hidden = jax.nn.silu(dense('first', x, time))
    for i in range(self.depth):
      hidden += jax.nn.silu(dense(f'layer{i}', _normalize(hidden), time))
    return dense('last', _normalize(hidden))

  def _optimizer(self) -> optax.GradientTransformation:
    rise = self.steps // 20
    return optax.adam(
      optax.warmup_cosine_decay_schedule(
        self.learning_rate / (rise + 1), self.learning_rate, rise, self.steps
      )
    )


def init_network(key: Array, d: int, width: int, depth: int) -> State:
  """Draws weights for a network that predicts zero at first."""
  inside = width + 2 * _FREQUENCIES
  sizes = {'first': (d + 2 * _FREQUENCIES, width)}
  sizes |= {f'layer{i}': (inside, width) for i in range(depth)}
  sizes |= {'last': (width, d)}
  params = {}
  for i, (name, size) in enumerate(sizes.items()):
    kernel = jax.random.normal(jax.random.fold_in(key, i), size, np.float32)
    gain = 0.0 if name == 'last' else size[0] ** -0.5
    params[f'{name}/kernel'] = gain * kernel
    params[f'{name}/bias'] = jnp.zeros(size[1], np.float32)
  return params


def _normalize(x: Array) -> Array:
  """Layer normalization without parameters."""
  return jax.nn.standardize(x, axis=1, epsilon=1e-6)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _train(
  settings: FlowMatching, training: Training, batches: Array, key: Array
) -> tuple[Training, Array]:
  """Takes a step for each of the batches [steps, B, d]; also the mean loss."""
  optimizer = settings._optimizer()

  def loss_of(params: State, batch: Array, key: Array) -> Array:
    of_noise, of_time = jax.random.split(key)
    noise = jax.random.normal(of_noise, batch.shape, np.float32)
    t = jax.random.uniform(of_time, (len(batch),), np.float32)
    mixed = noise + t[:, None] * (batch - noise)
    error = settings.velocity(params, mixed, t) - (batch - noise)
    return jnp.mean(error**2)

  def step(now: Training, batch: Array) -> tuple[Training, Array]:
    draw = jax.random.fold_in(key, now.step)
    loss, gradient = jax.value_and_grad(loss_of)(now.params, batch, draw)
    updates, state = optimizer.update(gradient, now.optimizer, now.params)
    params = optax.apply_updates(now.params, updates)
    averaged = averages.follow(now.averaged, params, _EMA, now.step)
    return Training(params, averaged, state, now.step + 1), loss

  training, losses = lax.scan(step, training, batches)
  return training, jnp.mean(losses)
