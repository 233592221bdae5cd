"""The state of the run of a map prior, and one step of its training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from lasers_jax.priors.maps.base import MapPrior
from lasers_jax.training.state import TrainState
from lasers_jax.training.step import update


def create_prior_state(
  prior: MapPrior,
  optimizer: optax.GradientTransformation,
  view: Array,
  seed: Array | int,
) -> TrainState:
  """Draws weights, and lets statistics start from some of the training view.

  Args:
    view: [n, H, W, ...].
    seed: an integer; the state is a pure function of it and the view.
  """
  view = as_view(view)
  init_key, run_key = jax.random.split(jax.random.key(seed))
  labels = jnp.full(1, prior.classes, jnp.int32)
  streams = {'params': init_key, 'prior': init_key}
  variables = prior.init(streams, view[:1], labels, train=False)
  variables = {'codebook': {}, **variables}
  if variables['codebook']:
    _, fitted = prior.apply(
      variables, view, method='initialize', mutable=['codebook']
    )
    variables |= fitted
  params = variables['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    codebook=variables['codebook'],
    opt_state=optimizer.init(params),
    ema_params=jax.tree.map(jnp.copy, params),
    key=run_key,
  )


def prior_state_shapes(
  prior: MapPrior, optimizer: optax.GradientTransformation, view: Any
) -> TrainState:
  """Returns the shapes and dtypes of a state, without computing it.

  Args:
    view: as of `create_prior_state`, or its shape and dtype.
  """
  view = jax.ShapeDtypeStruct(view.shape, view.dtype)
  seed = jax.ShapeDtypeStruct((), jnp.uint32)

  def create(view, seed):
    return create_prior_state(prior, optimizer, view, seed)

  return jax.eval_shape(create, view, seed)


def as_view(stored: Array) -> Array:
  """Returns a view as a prior takes it; events may be stored in fewer bits."""
  floats = jnp.issubdtype(stored.dtype, jnp.floating)
  return stored if floats else stored.astype(jnp.int32)


def make_prior_step(
  prior: MapPrior, optimizer: optax.GradientTransformation, ema: float
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
  """Builds the pure function of a step: (state, batch) -> (state, metrics).

  A batch is {'view': [B, H, W, ...], 'label': int32 [B]}.
  """

  def prior_step(state: TrainState, batch: dict[str, Array]):
    key = jax.random.fold_in(state.key, state.step)
    draws, dropout = jax.random.split(key)

    def loss(params):
      losses, stats = prior.apply(
        {'params': params, 'codebook': state.codebook},
        as_view(batch['view']),
        batch['label'],
        train=True,
        rngs={'prior': draws, 'dropout': dropout},
      )
      return jnp.mean(losses), stats

    (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(
      state.params
    )
    params, averaged, opt_state = update(optimizer, ema, gradients, state)
    metrics = {
      'loss': value,
      **stats,
      'gradient_norm': optax.tree.norm(gradients),
    }
    state = state.replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema_params=averaged,
    )
    return state, metrics

  return prior_step
