"""Trains a run from its config to its last checkpoint, from top to bottom."""

import functools
import logging
import os
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lasers_jax import data
from lasers_jax.core import sharding
from lasers_jax.core.images import save_png, to_float
from lasers_jax.core.storage import make_folder
from lasers_jax.core.trees import merge
from lasers_jax.errors import InputError, optional
from lasers_jax.evaluation import protocol
from lasers_jax.experiment import settings, sources, tokenizers
from lasers_jax.experiment.figures import reconstruction_figure
from lasers_jax.experiment.hooks import Hooks
from lasers_jax.experiment.loading import Source, read_source
from lasers_jax.experiment.stepping import Stepping, take_steps
from lasers_jax.metrics.registry import ALWAYS
from lasers_jax.networks.autoencoder import network_shapes
from lasers_jax.training import workdir
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.monitor import Monitor, parameter_table
from lasers_jax.training.objective import Objective, make_objective
from lasers_jax.training.state import (
  TrainState,
  create_train_state,
  evaluation_variables,
)
from lasers_jax.training.step import make_train_step
from lasers_jax.training.stop import StopRequests


class Work(NamedTuple):
  """The objects that the parts of a run share."""

  experiment: settings.Experiment
  path: str  # the workdir
  mesh: Mesh
  validation: data.Source | None
  hooks: Hooks
  frozen: Any  # parameters that are not trained


class Program(NamedTuple):
  """The jitted functions of a run, and the state that they share.

  Attributes:
    target: shapes, dtypes and shardings of the state (jax.ShapeDtypeStruct).
    create: the images of a batch, loaded variables -> the first state.
    step: (state, images, perceptual parameters, frozen parameters) -> (state,
      metrics). The state that it takes is donated.
    frozen: shapes, dtypes and shardings of the frozen parameters.
  """

  target: TrainState
  create: Callable
  step: Callable
  frozen: Any = MappingProxyType({})


def train_and_evaluate(
  config: dict, path: str, images: Any = None, hooks: Hooks | None = None
) -> TrainState:
  """Trains the model of a config in a workdir, and validates it on the way.

  Args:
    config: nested dictionaries, as the files of `configs/` make them.
    path: the workdir; a run that stopped there goes on.
    images: of the run, as `sources.by_role` takes them; None opens the data set
      of the config.
    hooks: called at the turns of the run.

  Returns:
    The last state; its step is below `steps` where the run was asked to stop.

  Raises:
    InputError: a user error.
    TrainingError: the loss is not finite.
  """
  path, hooks = workdir.locate(path), hooks or Hooks()
  config = dict(config) if images is None else sources.mark_given(config)
  config = tokenizers.completed(config)
  experiment = settings.from_config(config)
  source = read_source(experiment)
  if source:
    config = merge(config, {'network': {'source_hash': source.hash}})
  objective, perceptual_params = make_objective(
    experiment.model, experiment.loss, experiment.degradation
  )
  terms = objective.check_weights(experiment.data.side)
  mesh = sharding.make_mesh(**vars(experiment.mesh))
  check_sizes(experiment, mesh)
  train, validation, fingerprints = open_data(experiment, path, images)
  perceptual_params = jax.device_put(
    perceptual_params, sharding.replicated(mesh)
  )
  program = build_program(experiment, objective, mesh)
  frozen = put_frozen(program, source)
  work = Work(experiment, path, mesh, validation, hooks, frozen)
  run = workdir.Run(config, settings.with_defaults, fingerprints)
  with (
    workdir.lock_workdir(path, run) as lease,
    Checkpoints(path, experiment.checkpoints_kept, lease=lease) as checkpoints,
  ):
    state = checkpoints.restore(program.target)
    if state is None:
      loaded = source.variables if source else {}
      loaded = jax.device_put(loaded, sharding.replicated(mesh))
      state = program.create(put_images(train.batch(0), mesh), loaded)
    log_summary(experiment, mesh, state, experiment.bits_per_pixel)
    if frozen:
      logging.info('%-10s %s', 'frozen', experiment.source.pretrained)
    hooks.on_start(experiment, mesh, state)
    if int(state.step) < experiment.steps:
      # Before the loop, where a request to stop is met at once: there is
      # nothing new to save.
      traced = trace_step(experiment, mesh, program, perceptual_params)
      step = traced.lower().compile()
      stepping = Stepping(
        experiment,
        path,
        train,
        lambda state, batch: step(
          state, put_images(batch, mesh), perceptual_params, frozen
        ),
        functools.partial(validate, work),
        terms,
        hooks,
        lease,
      )
      state = take_steps(stepping, state, checkpoints)
    return state


def open_data(
  experiment: settings.Experiment, path: str, images: Any = None
) -> tuple[data.TrainPipeline, data.Source | None, dict[str, Any]]:
  """Opens training and validation images, and returns their fingerprints, too.

  Logs a warning where the test split, which is needed later, cannot be opened.

  Returns:
    The training batches, the validation split (None where images are given
    without one), and the fingerprint of each split.
  """
  splits = experiment.data
  if images is None:
    train = splits.train_pipeline(experiment.batch_size, experiment.seed, path)
    validation = splits.open(splits.validation, path, ALWAYS.minimum_side)
    test = splits.look_for(splits.test, path, ALWAYS.minimum_side)
    names = splits.train, splits.validation, splits.test
  else:
    given = sources.by_role(images)
    train = splits.train_pipeline(
      experiment.batch_size, experiment.seed, source=given['train']
    )
    validation, test = given.get('validation'), given.get('test')
    names = sources.ROLES
  if validation is None and experiment.evaluate_every:
    raise InputError(
      f'evaluate_every={experiment.evaluate_every} requires images to validate '
      "with: data={'train': ..., 'validation': ...}, or evaluate_every=0"
    )
  opened = zip(names, (train, validation, test), strict=True)
  fingerprints = {x: y.fingerprint for x, y in opened if y is not None}
  return train, validation, fingerprints


def build_program(
  experiment: settings.Experiment, objective: Objective, mesh: Mesh
) -> Program:
  """Builds the functions of a run on a mesh; nothing is computed yet."""
  model = experiment.model
  optimizer, adversary = settings.build_learners(experiment)

  def create(images, loaded=MappingProxyType({})):
    key = jax.random.key(experiment.seed)
    inputs, _ = objective.degraded(to_float(images), key)
    return create_train_state(
      model, optimizer, inputs, experiment.seed, adversary, loaded
    )

  # Shapes first, so that each array is created in its place; of whole batches,
  # so that the start of a run is traced once.
  shapes = jax.eval_shape(create, batch_shape(experiment, mesh))
  places = sharding.state_shardings(shapes, mesh, model.bottleneck.K)
  kept = network_shapes(model) if model.frozen else {}
  frozen_places = sharding.state_shardings(kept, mesh)
  step = make_train_step(
    objective, optimizer, experiment.optimizer.ema, adversary
  )
  everywhere = sharding.replicated(mesh)
  return Program(
    target=sharding.with_shardings(shapes, places),
    create=jax.jit(create, out_shardings=places),
    step=jax.jit(
      step,
      in_shardings=(
        places,
        sharding.batch_sharding(mesh),
        everywhere,
        frozen_places,
      ),
      out_shardings=(places, everywhere),
      donate_argnums=0,
    ),
    frozen=sharding.with_shardings(kept, frozen_places),
  )


def put_frozen(program: Program, source: Source | None) -> Any:
  """Puts the parameters that are not trained where they live."""
  if not program.frozen:
    return {}
  assert source is not None  # `SourceSettings` saw to it
  places = jax.tree.map(lambda x: x.sharding, program.frozen)
  return jax.device_put(source.params, places)


def trace_step(
  experiment: settings.Experiment,
  mesh: Mesh,
  program: Program,
  perceptual_params: Any,
) -> jax.stages.Traced:
  """Traces the step of a run; `perceptual_params` may be shapes."""
  images = batch_shape(experiment, mesh)
  return program.step.trace(
    program.target, images, perceptual_params, dict(program.frozen)
  )


def batch_shape(
  experiment: settings.Experiment, mesh: Mesh
) -> jax.ShapeDtypeStruct:
  """Returns the shape of the images of a step, uint8, and where they live."""
  side = experiment.data.side
  return jax.ShapeDtypeStruct(
    (experiment.batch_size, side, side, 3),
    np.uint8,
    sharding=sharding.batch_sharding(mesh),
  )


def check_sizes(experiment: settings.Experiment, mesh: Mesh) -> None:
  """Raises InputError where images are too small, or batches do not split."""
  if not experiment.data.whole:
    protocol.check_size(experiment.data.side, experiment.data.side)
  sharding.check_batch(experiment.batch_size, mesh, 'batch_size')
  batch_size = experiment.evaluation.batch_size
  sharding.check_batch(batch_size, mesh, 'evaluation.batch_size')


def put_images(batch: dict[str, np.ndarray], mesh: Mesh) -> jax.Array:
  """Puts this process's images of a batch on its devices."""
  return sharding.put_batch({'image': batch['image']}, mesh)['image']


def validate(
  work: Work, state: TrainState, monitor: Monitor, stop: StopRequests
) -> None:
  """Measures the validation split, and writes a figure of it.

  Raises:
    Abandoned: the run was asked to stop.
  """
  started, step = time.time(), int(state.step)
  work.hooks.on_validation(step)
  experiment, mesh, validation = work.experiment, work.mesh, work.validation
  assert validation is not None  # `open_data` saw to it
  variables = evaluation_variables(state, work.frozen)
  batches = experiment.data.evaluation_batches(
    validation, experiment.evaluation.batch_size, experiment.pad_multiple
  )
  results = protocol.evaluate(
    experiment.model,
    variables,
    stop.checked(batches),
    mesh,
    experiment.decoding,
    experiment.degradation,
  )
  logging.info(
    'validation at step %d: %s (%.0f s)',
    step,
    protocol.one_line(results),
    time.time() - started,
  )
  monitor.write(step, protocol.scalars(results, 'validation'))
  work.hooks.on_results(step, results)
  stop.check()
  with optional('figure of the validation split'):
    write_figure(work, validation, variables, step, monitor)
  monitor.restart_clock(step)


def write_figure(
  work: Work,
  validation: data.Source,
  variables: Any,
  step: int,
  monitor: Monitor,
) -> None:
  """Writes reconstructions of the validation split to a file and the log."""
  experiment = work.experiment
  images = experiment.data.first_images(
    validation, experiment.evaluation.pictures
  )
  figure = reconstruction_figure(
    experiment.model,
    variables,
    images,
    work.mesh,
    experiment.decoding,
    experiment.degradation,
  )
  if jax.process_index() == 0:
    folder = os.path.join(work.path, 'pictures')
    make_folder(folder)
    save_png(os.path.join(folder, f'{step}.png'), figure)
  monitor.write_figure(step, 'validation', figure)


def log_summary(
  run: Any, mesh: Mesh, state: TrainState, bits: float | None
) -> None:
  """Logs the devices, parameters, bits per pixel and steps of a run."""
  if jax.process_index():
    return
  kinds = sorted({d.device_kind for d in mesh.devices.flat})
  parts = dict(state.params)
  if state.adversary:
    parts['discriminator'] = state.adversary.params
  sizes = ', '.join(
    f'{name} {sum(x.size for x in jax.tree.leaves(part)):,}'
    for name, part in parts.items()
  )
  lines = {
    'processes': jax.process_count(),
    'devices': f'{mesh.size} × {", ".join(kinds)}',
    'mesh': ' × '.join(f'{k}={v}' for k, v in mesh.shape.items()),
    'parameters': sizes,
    'code': f'{bits:.4g} bits per pixel' if bits else 'continuous',
    'state': f'{sharding.bytes_per_device(state):,} bytes per device',
    'steps': f'{int(state.step)} of {run.steps} done',
  }
  with optional('table of parameters'):
    logging.info('%s', parameter_table(parts))
  for name, text in lines.items():
    logging.info('%-10s %s', name, text)
