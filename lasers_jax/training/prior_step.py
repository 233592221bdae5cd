"""The state of the run of a map prior, and one step of its training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lasers_jax.priors.maps.base import MapPrior
from lasers_jax.training.state import TrainState
from lasers_jax.training.step import update


def fit_statistics(
  prior: MapPrior, view: np.ndarray, quantized: np.ndarray
) -> Any:
  """Returns the statistics that a prior has of the training view.

  Args:
    view: [n, H, W, ...], some of its rows, on the host.
    quantized: [n, H, W, D], what the decoder receives of them.
  """
  example = jax.ShapeDtypeStruct((1, *view.shape[1:]), view.dtype)
  shapes = jax.eval_shape(lambda x: _initial(prior, x, 0), example)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  _, fitted = prior.apply(
    zeros, view, quantized, method='initialize', mutable=['codebook']
  )
  return fitted['codebook']


def create_prior_state(
  prior: MapPrior,
  optimizer: optax.GradientTransformation,
  view: Array,
  seed: Array | int,
  statistics: Any = None,
) -> TrainState:
  """Draws weights.

  Args:
    view: [1, H, W, ...], an example.
    seed: an integer; the weights are a pure function of it.
    statistics: of `fit_statistics`; None has those of before.
  """
  variables = {'codebook': {}, **_initial(prior, view, seed)}
  params = variables['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    codebook=variables['codebook'] if statistics is None else statistics,
    opt_state=optimizer.init(params),
    ema_params=jax.tree.map(jnp.copy, params),
    key=jax.random.fold_in(jax.random.key(seed), 1),
  )


def _initial(prior: MapPrior, view: Array, seed: Array | int) -> dict[str, Any]:
  labels = jnp.full(1, prior.classes, jnp.int32)
  key = jax.random.key(seed)
  streams = {'params': key, 'prior': key}
  return prior.init(streams, as_view(view), labels, train=False)


def prior_state_shapes(
  prior: MapPrior, optimizer: optax.GradientTransformation, view: Any
) -> TrainState:
  """Returns the shapes and dtypes of a state, without computing it.

  Args:
    view: of `create_prior_state`, or its shape and dtype.
  """
  view = jax.ShapeDtypeStruct((1, *view.shape[1:]), view.dtype)
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
