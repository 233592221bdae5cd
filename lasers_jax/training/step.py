"""One step of training, as for one device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.training.objective import LossSettings, objective
from lasers_jax.training.state import TrainState


def to_float(images: Array) -> Array:
  """uint8 images to float32 in [0, 1]."""
  return images.astype(jnp.float32) / 255


def make_train_step(
  model: Autoencoder,
  optimizer: optax.GradientTransformation,
  loss: LossSettings,
  ema: float,
) -> Callable[[TrainState, Array], tuple[TrainState, dict[str, Array]]]:
  """Builds the pure function (state, images uint8) -> (state, metrics)."""

  def train_step(state: TrainState, images: Array):
    images = to_float(images)
    loss_key, revive_key = jax.random.split(
      jax.random.fold_in(state.key, state.step)
    )
    gradient_of = jax.value_and_grad(objective, argnums=2, has_aux=True)
    (_, (metrics, output, codebook)), gradients = gradient_of(
      model, loss, state.params, state.codebook, images, loss_key
    )
    updates, opt_state = optimizer.update(
      gradients, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    averaged = _average(state.ema_params, params, ema, state.step)
    before = params
    params, codebook = _revive(
      model, params, codebook, output.z, state.step, revive_key
    )
    # The average of a dead atom and its successor would be neither.
    averaged = jax.tree.map(
      lambda mean, old, new: mean + (new - old),
      averaged,
      before,
      params,
    )
    metrics['gradient_norm'] = optax.tree.norm(gradients)
    state = state.replace(
      step=state.step + 1,
      params=params,
      codebook=codebook,
      opt_state=opt_state,
      ema_params=averaged,
    )
    return state, metrics

  return train_step


def _revive(model, params, codebook, z, step, key):
  """Replaces dead atoms every `revive_every` steps."""
  every = model.bottleneck.revive_every
  if not every or not codebook:
    return params, codebook

  def revive(variables):
    _, changed = model.apply(
      variables,
      z,
      method='revive',
      mutable=['params', 'codebook'],
      rngs={'bottleneck': key},
    )
    return {**variables, **changed}

  variables = lax.cond(
    (step + 1) % every == 0,
    revive,
    lambda variables: variables,
    {'params': params, 'codebook': codebook},
  )
  return variables['params'], variables['codebook']


def _average(average, params, decay: float, step: Array):
  """A moving average that follows quickly at first."""
  t = step.astype(jnp.float32)
  rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
  return optax.incremental_update(params, average, rate)
