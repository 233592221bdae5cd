"""Finds trained models, and reads them."""

import os
from collections.abc import Mapping

import jax
import optax
from jax.sharding import Mesh

from lasers_jax.core import sharding
from lasers_jax.core.storage import absolute, check_bucket, is_folder
from lasers_jax.errors import InputError, nearest
from lasers_jax.experiment import exported, foreign, settings
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.training import workdir
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.state import (
  TrainState,
  evaluation_variables,
  state_shapes,
)

# Folders of the exported models that come with the package, by name.
NAMES: Mapping[str, str] = {}


def load(
  path: str | os.PathLike, checkpoint: int | None = None
) -> TrainedModel:
  """Reads a trained model.

  Args:
    path: a workdir or the folder of an exported model, on a disk or in a
      bucket (gs://, s3://); a name in NAMES; or a tokenizer of another project,
      'diffusers:FOLDER' or a file of weights (.safetensors, .ckpt, .pth).
    checkpoint: the step of a checkpoint of a workdir; None takes the newest
      that is whole.

  Returns:
    The model with averaged parameters, on as many devices as divide a batch of
    evaluation.

  Raises:
    InputError: there is no such model, or it is damaged.
  """
  path = os.fspath(path)
  is_foreign = foreign.is_foreign(path)
  folder = path if is_foreign else find(path)
  if not is_foreign and not exported.is_exported(folder):
    return _load_workdir(workdir.locate(folder), checkpoint)
  if checkpoint is not None:
    kind = 'of another project' if is_foreign else 'an exported model'
    raise InputError(
      f'{folder} is {kind} and has no checkpoints: leave out the checkpoint '
      f'{checkpoint}'
    )
  return foreign.load(path) if is_foreign else _load_exported(folder)


def find(path: str) -> str:
  """Returns the folder of a model by its path or name.

  Raises:
    InputError: there is none.
  """
  if path in NAMES and not is_folder(path):
    return NAMES[path]
  folder = absolute(path)
  if is_folder(folder):
    return folder
  check_bucket(folder)
  near = nearest(path, list(NAMES))
  raise InputError(f'{path} is no workdir of a run and no exported model{near}')


def _load_workdir(path: str, checkpoint: int | None) -> TrainedModel:
  config = workdir.load_config(path)
  if 'stage_one' in config:
    raise InputError(
      f'{path} is a prior and no model: name the model that it is of, '
      f'{config["stage_one"].get("path")}; `load_prior` and --prior read priors'
    )
  experiment = settings.from_config(config)
  mesh = experiment.evaluation_mesh()
  state = restore(experiment, path, checkpoint, mesh)
  variables, step = evaluation_variables(state), int(state.step)
  return TrainedModel(experiment, variables, config, mesh, step, path)


def _load_exported(path: str) -> TrainedModel:
  config = workdir.load_config(path)
  experiment = settings.from_config(config)
  mesh = experiment.evaluation_mesh()
  # An export has no state of an optimizer.
  side, module = experiment.data.side, experiment.model
  shapes = evaluation_variables(state_shapes(module, optax.identity(), side))
  variables, step = exported.read(path, shapes)
  variables = jax.device_put(variables, sharding.replicated(mesh))
  return TrainedModel(experiment, variables, config, mesh, step, path)


def restore(
  experiment: settings.Experiment, path: str, step: int | None, mesh: Mesh
) -> TrainState:
  """Reads a checkpoint of a workdir to every device of a mesh.

  Raises:
    InputError: there is none, or it is damaged.
  """
  optimizer, adversary = settings.build_learners(experiment)
  side = experiment.data.side
  shapes = state_shapes(experiment.model, optimizer, side, adversary)
  places = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
  target = sharding.with_shardings(shapes, places)
  with Checkpoints(path, read_only=True) as checkpoints:
    state = checkpoints.restore(target, step)
  if state is None:
    raise InputError(f'{path} has no checkpoint yet')
  return state
