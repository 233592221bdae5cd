"""Builds one step of training, written as for one device."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from lasers_jax.core import averages
from lasers_jax.core.images import to_float
from lasers_jax.core.trees import merge
from lasers_jax.decoders import Decoder
from lasers_jax.training.adversarial import (
  Adversary,
  adaptive_weight,
  scheduled_discriminator_step,
)
from lasers_jax.training.objective import Objective
from lasers_jax.training.state import TrainState


def make_train_step(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  ema: float,
  adversary: Adversary | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
  """Builds the pure function of a step.

  It takes (state, images, perceptual_params, frozen), and returns (state,
  metrics). Images are uint8 [B, h, w, 3]; then come the parameters of the
  perceptual network, or None, and those of networks that are not trained.
  """

  def train_step(
    state: TrainState,
    images: Array,
    perceptual_params: Any = None,
    frozen: Mapping[str, Any] = MappingProxyType({}),
  ):
    images = to_float(images)
    loss_key, revive_key = jax.random.split(
      jax.random.fold_in(state.key, state.step)
    )
    gradients, disc_state, (metrics, output, codebook) = _backward(
      objective,
      adversary,
      state,
      images,
      loss_key,
      perceptual_params,
      frozen,
    )
    params, averaged, opt_state = update(optimizer, ema, gradients, state)
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
      adversary=disc_state,
    )
    return state, metrics

  return train_step


def _backward(
  objective: Objective,
  adversary: Adversary | None,
  state: TrainState,
  images: Array,
  key: Array,
  perceptual_params: Any,
  frozen: Mapping[str, Any],
):
  """Returns the gradients, the discriminator's new state, and the objective's.

  The last is (metrics, output, codebook), as `Objective` gives it.
  """

  def forward(params):
    everything = merge(params, frozen)
    loss, aux = objective(
      everything, state.codebook, images, key, perceptual_params
    )
    return (loss, aux[1].images), aux

  (loss, decoded), backward, aux = jax.vjp(forward, state.params, has_aux=True)
  image_gradient = jax.tree.map(jnp.zeros_like, decoded)  # None without any
  disc_state = state.adversary
  if adversary:
    disc_state, image_gradient, metrics = scheduled_discriminator_step(
      adversary, disc_state, images, decoded, state.step
    )
    weight = _adversarial_weight(
      adversary, objective.model.decoder, backward, loss, image_gradient
    )
    image_gradient = weight * image_gradient
    aux = (aux[0] | metrics | {'adversarial_weight': weight}, *aux[1:])
  (gradients,) = backward((jnp.ones_like(loss), image_gradient))
  return gradients, disc_state, aux


def update(optimizer, ema: float, gradients, state: TrainState):
  """Returns the moved parameters, their averages, and the optimizer's state."""
  updates, opt_state = optimizer.update(
    gradients, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  averaged = averages.follow(state.ema_params, params, ema, state.step)
  return params, averaged, opt_state


def _adversarial_weight(
  adversary: Adversary,
  decoder: Decoder,
  backward: Callable,
  loss: Array,
  image_gradient: Array,
) -> Array:
  """Returns the weight of the adversarial loss; 0 where its gradient is 0."""
  weight = jnp.float32(adversary.settings.weight)
  if adversary.settings.adaptive:
    # Of the two passes back, only what the last layer needs is computed.
    others, adversarial = (
      decoder.last_layer(backward(ends)[0]['decoder'])
      for ends in (
        (jnp.ones_like(loss), jnp.zeros_like(image_gradient)),
        (jnp.zeros_like(loss), image_gradient),
      )
    )
    weight *= adaptive_weight(others, adversarial)
  return jnp.where(jnp.any(image_gradient != 0), weight, 0.0)


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
