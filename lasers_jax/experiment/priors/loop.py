"""Trains a map prior from its config to its last checkpoint, top to bottom."""

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from lasers_jax.core import sharding, storage
from lasers_jax.core.images import save_png
from lasers_jax.core.storage import make_folder
from lasers_jax.data import Source
from lasers_jax.data.rows import RowBatches
from lasers_jax.errors import InputError, optional
from lasers_jax.experiment.foreign import with_images
from lasers_jax.experiment.hooks import Hooks
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.loop import Program, log_summary
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.priors import measuring, running, settings
from lasers_jax.experiment.priors.labels import (
  CLASSES,
  classes_of,
  labels_for,
  shown_classes,
)
from lasers_jax.experiment.priors.latents import (
  CodedBatches,
  code_split,
  local,
)
from lasers_jax.experiment.priors.settings import PriorExperiment
from lasers_jax.experiment.priors.views import (
  PLANES,
  View,
  by_variance,
  prior_of,
  view_of,
  with_planes,
)
from lasers_jax.experiment.shipped import named
from lasers_jax.experiment.stepping import Batches, Stepping, take_steps
from lasers_jax.priors.maps.base import MapPrior
from lasers_jax.report import grids
from lasers_jax.training import workdir
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.monitor import Monitor
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.prior_step import (
  create_prior_state,
  fit_statistics,
  make_prior_step,
  prior_state_shapes,
)
from lasers_jax.training.state import TrainState, evaluation_variables
from lasers_jax.training.stop import StopRequests

FITTED_TO = 4_096  # rows of the training view that statistics start from


class Data(NamedTuple):
  """What a prior is trained on and validated with.

  Attributes:
    view: of the model's images.
    batches: of training.
    first: rows of the training view, from which statistics start.
    validation: `view` and `label` of the validation split.
    names: of the classes; [] without labels.
    fingerprints: of the images of each split.
  """

  view: View
  batches: Batches
  first: np.ndarray
  validation: Mapping[str, np.ndarray]
  names: list[str]
  fingerprints: Mapping[str, Any]


class Work(NamedTuple):
  """The objects that the parts of a run share."""

  experiment: PriorExperiment
  path: str  # the workdir
  mesh: Mesh
  prior: MapPrior
  data: Data


def train_prior(
  config: dict, model: str, path: str, hooks: Hooks | None = None
) -> TrainState:
  """Trains a prior over the codes or latents of a trained model.

  Args:
    config: nested dictionaries, as `configs/prior.py` makes them.
    model: a workdir or an exported model, as of `load`.
    path: the workdir of the prior; a run that stopped there goes on.
    hooks: called at the turns of the run.

  Returns:
    The last state; its step is below `steps` where the run was asked to stop.

  Raises:
    InputError: a user error.
    TrainingError: the loss is not finite.
  """
  path, hooks = workdir.locate(path), hooks or Hooks()
  if storage.exists(os.path.join(path, workdir.CONFIG)):
    settings.load_config(path)
  trained = load(model)
  config = with_stage_one(config, trained)
  experiment = settings.from_config(config)
  stage_one = experiment.stage_one
  trained = with_images(trained, stage_one.data, stage_one.side)
  mesh = sharding.make_mesh(**vars(experiment.mesh))
  sharding.check_batch(experiment.batch_size, mesh, 'batch_size')
  found = open_data(experiment, local(trained), path)
  prior = prior_of(experiment, found.view, len(found.names))
  work = Work(experiment, path, mesh, prior, found)
  program = build_program(experiment, prior, found.first, mesh)
  run = workdir.Run(config, settings.with_defaults, found.fingerprints)
  with (
    workdir.lock_workdir(path, run) as lease,
    Checkpoints(path, experiment.checkpoints_kept, lease=lease) as checkpoints,
  ):
    state = checkpoints.restore(program.target)
    if state is None:
      quantized = found.view.by_site(found.view.quantized(found.first))
      statistics = fit_statistics(prior, found.first, quantized)
      state = program.create(found.first[:1], statistics)
    log_summary(experiment, mesh, state, bits_of(experiment, trained))
    hooks.on_start(experiment, mesh, state)
    if int(state.step) < experiment.steps:
      stepping = Stepping(
        experiment,
        path,
        found.batches,
        lambda state, batch: program.step(
          state, sharding.put_batch(batch, mesh)
        ),
        functools.partial(validate, work),
        [],
        hooks,
        lease,
      )
      state = take_steps(stepping, state, checkpoints)
    return state


def with_stage_one(config: Mapping[str, Any], model: TrainedModel) -> dict:
  """Returns a config that has the model's path, or name, and weights.

  Raises:
    InputError: it names another model already.
  """
  known = config.get('stage_one', {}).get('weights') or model.weights
  if known != model.weights:
    raise InputError(
      f'the config is of a prior over the model with weights {known}, and '
      f'{model.path} has {model.weights}'
    )
  found = {
    'path': named(model.path),
    'step': model.step,
    'weights': model.weights,
  }
  return {**config, 'stage_one': {**config.get('stage_one', {}), **found}}


def bits_of(experiment: PriorExperiment, model: TrainedModel) -> float | None:
  """Returns the fixed-length bits per pixel of what is modelled."""
  if experiment.view != 'codes':
    return None
  return model.experiment.bits_per_pixel


def open_data(
  experiment: PriorExperiment, model: TrainedModel, path: str
) -> Data:
  """Codes the images that the prior is trained on and validated with."""
  view, splits = view_of(model, experiment), model.experiment.data
  source = model.open_split(splits.train)
  held_out = model.open_split(splits.validation)
  open_training = _coded_once if experiment.cache == 'disk' else _coded_when_due
  batches, first, names = open_training(view, source, experiment, path)
  known = workdir.load_fingerprints(path)  # of a run that goes on
  view = with_planes(view, known) if known else by_variance(view, first)
  coded = code_split(view, held_out, path, mirrored=False)
  validation = {x: y[: experiment.validation_images] for x, y in coded.items()}
  validation['label'] = labels_for(
    validation['label'], names, splits.validation
  )
  fingerprints = {
    splits.train: source.fingerprint,
    splits.validation: held_out.fingerprint,
    # For draws that need no data.
    CLASSES: {'names': names},
  }
  if view.planes:
    fingerprints[PLANES] = {'order': list(view.planes)}
  return Data(
    view,
    batches(view),
    view.arranged(first),
    validation,
    names,
    fingerprints,
  )


# Batches of a view, of which planes may be in another order than in the code;
# rows of it, as the code has them, the same in all processes; and the classes.
_Training = tuple[Callable[[View], Batches], np.ndarray, list[str]]


def _coded_once(
  view: View, source: Source, experiment: PriorExperiment, path: str
) -> _Training:
  flip = view.model.experiment.data.flip
  rows = code_split(view, source, path, flip)
  rows['label'], names = classes_of(rows['label'], source.classes)
  spread = np.linspace(0, len(rows['view']) - 1, FITTED_TO).astype(int)

  def batches(view: View) -> Batches:
    arrays = {**rows, 'view': view.arranged(rows['view'])}
    process = jax.process_index(), jax.process_count()
    return RowBatches(arrays, experiment.batch_size, experiment.seed, *process)

  return batches, rows['view'][np.unique(spread)], names


def _coded_when_due(
  view: View, source: Source, experiment: PriorExperiment, path: str
) -> _Training:
  splits = view.model.experiment.data
  pipeline = splits.train_pipeline(experiment.batch_size, experiment.seed, path)
  labels = np.array([source[i]['label'] for i in range(len(source))])
  _, names = classes_of(labels, source.classes)

  def batches(view: View) -> Batches:
    return CodedBatches(view, pipeline, names)

  first = batches(view).batch(0)['view']
  return batches, multihost_utils.process_allgather(first, tiled=True), names


def build_program(
  experiment: PriorExperiment, prior: MapPrior, first: Any, mesh: Mesh
) -> Program:
  """Builds the functions of a run on a mesh; nothing is computed yet.

  Args:
    first: rows of the training view, or their shape and dtype.
  """
  optimizer = make_optimizer(experiment.optimizer, experiment.steps)
  shapes = prior_state_shapes(prior, optimizer, first)
  places = sharding.state_shardings(shapes, mesh, values=prior.value_axes)
  rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  def create(view, statistics):
    return create_prior_state(
      prior, optimizer, view, experiment.seed, statistics
    )

  return Program(
    target=sharding.with_shardings(shapes, places),
    create=jax.jit(create, out_shardings=places),
    step=jax.jit(
      make_prior_step(prior, optimizer, experiment.optimizer.ema),
      in_shardings=(places, rows),
      out_shardings=(places, everywhere),
      donate_argnums=0,
    ),
  )


def validate(
  work: Work, state: TrainState, monitor: Monitor, stop: StopRequests
) -> None:
  """Measures the validation split, and writes a figure of draws.

  Raises:
    Abandoned: the run was asked to stop.
  """
  started, step = time.time(), int(state.step)
  variables = evaluation_variables(state)
  results = measuring.measure(
    work.prior,
    variables,
    work.data.validation,
    work.mesh,
    work.data.view.side**2,
  )
  found = measuring.scalars(results)
  scalars = {f'validation_{name}': value for name, value in found.items()}
  logging.info(
    'validation at step %d: %s (%.0f s)',
    step,
    ' '.join(f'{k} {v:.4g}' for k, v in scalars.items()),
    time.time() - started,
  )
  monitor.write(step, scalars)
  stop.check()
  with optional('figure of draws'):
    write_draws(work, variables, step, monitor)
  monitor.restart_clock(step)


def write_draws(
  work: Work, variables: Any, step: int, monitor: Monitor
) -> None:
  """Writes images drawn for classes to a file and the log."""
  prior, experiment = work.prior, work.experiment
  each, names = experiment.evaluation.pictures, work.data.names
  shown = shown_classes(names)
  labels = np.repeat(shown, each)
  views = running.draw(
    prior, variables, labels, experiment.drawing, experiment.seed, work.mesh
  )
  images = work.data.view.images(views)
  if jax.process_index():
    return
  rows = [images[i : i + each] for i in range(0, len(images), each)]
  figure = grids.grid(rows, [names[i] for i in shown] if names else None)
  folder = os.path.join(work.path, 'pictures')
  make_folder(folder)
  save_png(os.path.join(folder, f'{step}.png'), figure)
  monitor.write_figure(step, 'draws', figure)
