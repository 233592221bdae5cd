"""The state of a run between two steps."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from lasers_jax.core.trees import merge, without
from lasers_jax.networks.autoencoder import Autoencoder, network_shapes
from lasers_jax.training import adversarial
from lasers_jax.training.adversarial import Adversary


class TrainState(flax.struct.PyTreeNode):
  """The state of a run; a checkpoint holds all of it, and nothing else."""

  step: Array  # int32, steps done
  params: Any  # those that are trained
  codebook: Any  # the bottleneck's statistics
  opt_state: Any
  ema_params: Any  # averaged weights, for evaluation
  key: Array
  adversary: Any = flax.struct.field(default_factory=dict)  # {} without one


def create_train_state(
  model: Autoencoder,
  optimizer: optax.GradientTransformation,
  inputs: Array,
  seed: Array | int,
  adversary: Adversary | None = None,
  loaded: Mapping[str, Any] = MappingProxyType({}),
) -> TrainState:
  """Draws weights, and initializes the bottleneck by a first batch.

  Args:
    inputs: [B, h, w, channels], what the encoder sees: images in [0, 1], or
      degraded ones.
    seed: an integer; the state is a pure function of it and the inputs.
    loaded: variables of the networks of a tokenizer, in place of drawn ones.
  """
  key = jax.random.key(seed)
  init_key, data_key, run_key = jax.random.split(key, 3)
  variables = merge(model.init({'params': init_key}, inputs[:1]), loaded)
  if model.standardized and 'codebook' not in loaded:
    _, measured = model.apply(
      variables, inputs, method='measure', mutable='codebook'
    )
    variables = {**variables, **measured}
  _, fitted = model.apply(
    variables,
    inputs,
    method='initialize',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': data_key},
  )
  variables = {'codebook': {}, **variables, **fitted}
  params, disc_state = variables['params'], {}
  if model.frozen:
    params = without(params, network_shapes(model))
  if adversary:
    disc_key = jax.random.fold_in(key, 1)
    disc_state = adversarial.start(adversary, inputs[..., :3], disc_key)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    codebook=variables['codebook'],
    opt_state=optimizer.init(params),
    ema_params=jax.tree.map(jnp.copy, params),
    key=run_key,
    adversary=disc_state,
  )


def state_shapes(
  model: Autoencoder,
  optimizer: optax.GradientTransformation,
  side: int,
  adversary: Adversary | None = None,
) -> TrainState:
  """Returns the shapes and dtypes of a run's state, without computing it."""
  shape = 1, side, side, model.channels
  inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
  seed = jax.ShapeDtypeStruct((), jnp.uint32)

  def create(inputs, seed):
    return create_train_state(model, optimizer, inputs, seed, adversary)

  return jax.eval_shape(create, inputs, seed)


def evaluation_variables(
  state: TrainState, frozen: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
  """Returns the variables of evaluation: averaged weights, last statistics.

  Args:
    frozen: parameters of the networks that are not trained.
  """
  params = merge(state.ema_params, frozen)
  return {'params': params, 'codebook': state.codebook}
