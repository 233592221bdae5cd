"""Trained models, read from a workdir."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lasers_jax import decoders
from lasers_jax.core import sharding
from lasers_jax.errors import InputError
from lasers_jax.experiment import settings
from lasers_jax.training import workdir
from lasers_jax.training.adversarial import make_adversary
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.state import (
  TrainState,
  evaluation_variables,
  state_shapes,
)


class TrainedModel(NamedTuple):
  """A trained model, and how it is to be measured."""

  config: dict
  run: settings.Experiment
  mesh: Mesh
  step: int
  variables: Any  # params and codebook


def load(
  path: str,
  step: int | None = None,
  data_changes: dict | None = None,
  bottleneck_changes: dict | None = None,
  sampling_changes: dict | None = None,
  batch_size: int | None = None,
) -> TrainedModel:
  """Reads a checkpoint of a workdir.

  Args:
    path: the workdir.
    step: the checkpoint; None takes the newest that is whole.
    data_changes, bottleneck_changes, sampling_changes: keys of the sections
      `data`, `bottleneck` and `decoder.sampling` of the config that are to
      differ from training.
    batch_size: images at a time; None takes that of the config.

  Raises:
    InputError: something that the user can mend.
  """
  path = workdir.locate(path)
  config = workdir.load_config(path)
  trained = settings.from_config(config)
  config['data'].update(data_changes or {})
  config['bottleneck'].update(bottleneck_changes or {})
  if sampling_changes:
    decoder = config.get('decoder', decoders.DEFAULT)
    sampling = {**decoder.get('sampling', {}), **sampling_changes}
    config['decoder'] = {**decoder, 'sampling': sampling}
  run = settings.from_config(config)
  if batch_size:
    changed = dataclasses.replace(run.evaluation, batch_size=batch_size)
    run = dataclasses.replace(run, evaluation=changed)
  devices = math.gcd(run.evaluation.batch_size, jax.device_count())
  mesh = sharding.make_mesh(data=devices)
  state = restore(trained, path, step, mesh)
  variables = evaluation_variables(state)
  return TrainedModel(config, run, mesh, int(state.step), variables)


def restore(
  run: settings.Experiment, path: str, step: int | None, mesh
) -> TrainState:
  """Reads a checkpoint of a workdir to every device of a mesh."""
  optimizer = make_optimizer(run.optimizer, run.steps)
  adversary = run.discriminator and make_adversary(run.discriminator)
  shapes = state_shapes(run.model, optimizer, run.data.side, adversary)
  places = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
  target = sharding.with_shardings(shapes, places)
  with Checkpoints(path, read_only=True) as checkpoints:
    state = checkpoints.restore(target, step)
  if state is None:
    raise InputError(f'{path} has no checkpoint yet')
  return state
