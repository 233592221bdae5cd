"""One step of training, as for one device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from lasers_jax.core.images import to_float
from lasers_jax.training.adversarial import (
  Adversary,
  adaptive_weight,
  play_in_time,
)
from lasers_jax.training.objective import Objective
from lasers_jax.training.state import TrainState


def make_train_step(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  ema: float,
  adversary: Adversary | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
  """Builds the pure function (state, images uint8, frozen) -> (state, metrics).

  `frozen` are the parameters of the perceptual network, if there is one.
  """

  def train_step(state: TrainState, images: Array, frozen: Any = None):
    images = to_float(images)
    loss_key, revive_key = jax.random.split(
      jax.random.fold_in(state.key, state.step)
    )

    def forward(params):
      loss, aux = objective(params, state.codebook, images, loss_key, frozen)
      return (loss, aux[1].images), aux

    (loss, copies), pull_back, aux = jax.vjp(
      forward, state.params, has_aux=True
    )
    metrics, output, codebook = aux
    pull, rival = jnp.zeros_like(copies), state.adversary
    if adversary:
      rival, pull, more = play_in_time(
        adversary, rival, images, copies, state.step
      )
      weight = _adversarial_weight(adversary, pull_back, loss, pull)
      pull = weight * pull
      metrics |= {**more, 'adversarial_weight': weight}
    (gradients,) = pull_back((jnp.ones_like(loss), pull))

    updates, opt_state = optimizer.update(
      gradients, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    averaged = _average(state.ema_params, params, ema, state.step)
    before = params
    params, codebook = _revive(
      objective.model, params, codebook, output.z, state.step, revive_key
    )
    # The average of a dead atom and its successor would be neither.
    averaged = jax.tree.map(
      lambda mean, old, new: mean + (new - old), averaged, before, params
    )
    metrics['gradient_norm'] = optax.tree.norm(gradients)
    state = state.replace(
      step=state.step + 1,
      params=params,
      codebook=codebook,
      opt_state=opt_state,
      ema_params=averaged,
      adversary=rival,
    )
    return state, metrics

  return train_step


def _adversarial_weight(
  adversary: Adversary, pull_back: Callable, loss: Array, pull: Array
) -> Array:
  """The weight of the adversarial loss; 0 where it says nothing yet."""
  weight = jnp.float32(adversary.settings.weight)
  if adversary.settings.adaptive:
    # Of the two passes back, only what the last layer needs is computed.
    others, adversarial = (
      pull_back(ends)[0]['decoder']['to_image']['kernel']
      for ends in (
        (jnp.ones_like(loss), jnp.zeros_like(pull)),
        (jnp.zeros_like(loss), pull),
      )
    )
    weight *= adaptive_weight(others, adversarial)
  return jnp.where(jnp.any(pull != 0), weight, 0.0)


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
