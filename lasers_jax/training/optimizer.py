"""Builds the optimizer of the networks, and the one of dictionaries."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from lasers_jax.coding import normalize_atoms
from lasers_jax.core.ranges import (
  Amount,
  Count,
  Decay,
  Fraction,
  Positive,
  Whole,
)
from lasers_jax.errors import InputError

OPTIMIZERS = ('adam', 'adamw')


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """Settings of the optimizer.

  Attributes:
    name: 'adam' or 'adamw'.
    learning_rate: the highest one of the schedule.
    dictionary_learning_rate: the same for the atoms of a dictionary.
    warmup: steps of linear increase from zero.
    final: the fraction of the learning rate that the cosine decays to.
    b1, b2: decays of Adam's moments.
    weight_decay: of 'adamw', for kernels only.
    clip: the maximum norm of the networks' gradient; 0 does not clip.
    accumulate: batches whose mean gradient makes one update.
    ema: decay per step of the averaged weights that evaluation uses.
  """

  name: str = 'adam'
  learning_rate: Positive = 1e-3
  dictionary_learning_rate: Amount = 1e-3
  warmup: Whole = 0
  final: Fraction = 0.0
  b1: Decay = 0.9
  b2: Decay = 0.999
  weight_decay: Amount = 0.0
  clip: Amount = 0.0
  accumulate: Count = 1
  ema: Decay = 0.999

  def __post_init__(self):
    if self.name not in OPTIMIZERS:
      raise InputError(
        f'optimizer.name must be one of {OPTIMIZERS}: {self.name!r}'
      )
    if self.weight_decay and self.name != 'adamw':
      raise InputError("optimizer.weight_decay goes with name='adamw' only")


def learning_rate_schedule(
  settings: OptimizerSettings, peak: float, steps: int
) -> optax.Schedule:
  """Returns the warm-up and cosine decay of a run of some steps.

  Where nothing decays, it is one schedule for any number of steps: a run that
  goes on for longer has the same program, and need not compile it again.
  """
  first = 0.0 if settings.warmup else peak
  if settings.final == 1:
    return optax.linear_schedule(first, peak, max(settings.warmup, 1))
  updates = max(steps // settings.accumulate, 1)
  return optax.warmup_cosine_decay_schedule(
    init_value=first,
    peak_value=peak,
    warmup_steps=settings.warmup,
    decay_steps=max(updates, settings.warmup + 1),
    end_value=settings.final * peak,
  )


def make_optimizer(
  settings: OptimizerSettings, steps: int
) -> optax.GradientTransformation:
  """Builds the optimizer of a run of some steps.

  Parameters named `dictionary` keep columns of norm 1, have a learning rate of
  their own and never decay (`on_the_sphere`); all others are clipped together.
  """

  def adam(peak: float) -> optax.GradientTransformation:
    return optax.chain(
      optax.scale_by_adam(settings.b1, settings.b2),
      optax.scale_by_learning_rate(
        learning_rate_schedule(settings, peak, steps)
      ),
    )

  weights = adam(settings.learning_rate)
  if settings.name == 'adamw':
    weights = optax.adamw(
      learning_rate_schedule(settings, settings.learning_rate, steps),
      settings.b1,
      settings.b2,
      weight_decay=settings.weight_decay,
      mask=_kernels,
    )
  if settings.clip:
    weights = optax.chain(optax.clip_by_global_norm(settings.clip), weights)
  dictionary = on_the_sphere(adam(settings.dictionary_learning_rate))
  optimizer = optax.partition(
    {'weights': weights, 'dictionary': dictionary}, _labels
  )
  if settings.accumulate > 1:
    optimizer = optax.MultiSteps(optimizer, settings.accumulate)
    optimizer = optimizer.gradient_transformation()
  return optimizer


def _kernels(params):
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == 'kernel', params
  )


def _labels(params):
  def label(path, _) -> str:
    return 'dictionary' if path[-1].key == 'dictionary' else 'weights'

  return jax.tree_util.tree_map_with_path(label, params)


def on_the_sphere(
  inner: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Keeps dictionaries [D, K] of unit-norm columns that way.

  The gradient is projected on the tangent of the sphere before `inner` sees
  it, and the columns are scaled back to norm 1 after its update.
  """

  def project(gradient: jax.Array, atoms: jax.Array) -> jax.Array:
    radial = jnp.sum(gradient * atoms, axis=0, keepdims=True)
    return gradient - atoms * radial

  def retract(update: jax.Array, atoms: jax.Array) -> jax.Array:
    return normalize_atoms(atoms + update) - atoms

  def update(updates, state, params):
    updates = jax.tree.map(project, updates, params)
    updates, state = inner.update(updates, state, params)
    return jax.tree.map(retract, updates, params), state

  return optax.GradientTransformation(inner.init, update)
