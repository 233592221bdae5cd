"""A run, from its config to its last checkpoint: read it from top to bottom."""

import logging
import os
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lasers_jax import data
from lasers_jax.core import sharding
from lasers_jax.core.images import save_png, to_float
from lasers_jax.errors import TrainingError, optional
from lasers_jax.evaluation import protocol
from lasers_jax.experiment import settings
from lasers_jax.experiment.figures import reconstruction_figure
from lasers_jax.metrics.registry import ALWAYS
from lasers_jax.training import workdir
from lasers_jax.training.adversarial import make_adversary
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.monitor import Monitor
from lasers_jax.training.objective import make_objective
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.state import (
  TrainState,
  create_train_state,
  evaluation_variables,
  state_shapes,
)
from lasers_jax.training.step import make_train_step
from lasers_jax.training.stop import StopRequests, stop_requests


class Work(NamedTuple):
  """What the parts of a run share."""

  run: settings.Settings
  path: str  # the workdir
  mesh: Mesh
  train: data.TrainPipeline
  validation: data.Source
  perceptual_params: Any
  terms: list[str]  # of the loss, in the order of a step


def train_and_evaluate(config: dict, path: str) -> TrainState:
  """Runs a config in a workdir: the whole story of a run, top to bottom.

  Args:
    config: nested dictionaries, as the files of `configs/` make them.
    path: the workdir; a run that stopped there goes on.

  Returns:
    The last state; its step is below `steps` where the run was asked to stop.

  Raises:
    InputError: something that the user can mend.
    TrainingError: the loss is not finite.
  """
  path = workdir.locate(path)
  run = settings.from_config(config)
  objective, perceptual_params = make_objective(run.model, run.loss)
  terms = objective.check_weights(run.data.side)

  # Devices and data
  mesh = sharding.make_mesh(**vars(run.mesh))
  check_sizes(run, mesh)
  train, validation, lists = open_data(run, path)
  everywhere = sharding.replicated(mesh)
  perceptual_params = jax.device_put(perceptual_params, everywhere)
  work = Work(run, path, mesh, train, validation, perceptual_params, terms)

  # The state: shapes first, so that each array is created in its place
  optimizer = make_optimizer(run.optimizer, run.steps)
  adversary = run.discriminator and make_adversary(run.discriminator)
  shapes = state_shapes(run.model, optimizer, run.data.side, adversary)
  places = sharding.state_shardings(shapes, mesh, run.model.bottleneck.K)
  target = sharding.with_shardings(shapes, places)

  def create(images):
    return create_train_state(
      run.model, optimizer, to_float(images), run.seed, adversary
    )

  # The step
  train_step = jax.jit(
    make_train_step(objective, optimizer, run.optimizer.ema, adversary),
    in_shardings=(places, sharding.batch_sharding(mesh), everywhere),
    out_shardings=(places, everywhere),
    donate_argnums=0,
  )

  with (
    workdir.hold(path, workdir.Run(config, settings.with_defaults, lists)),
    Checkpoints(path, run.checkpoints_kept) as checkpoints,
  ):
    # Go on, or start
    state = checkpoints.restore(target)
    if state is None:
      first = put_images(train.batch(0), mesh)
      state = jax.jit(create, out_shardings=places)(first)
    describe(run, mesh, state)
    if int(state.step) < run.steps:
      # Here, where a wish to stop can be met at once: nothing is new to save.
      train_step = train_step.lower(
        target, images_of(run, mesh), perceptual_params
      )
      state = loop(work, state, train_step.compile(), checkpoints)
    return state


def open_data(
  run: settings.Settings, path: str
) -> tuple[data.TrainPipeline, data.Source, dict[str, Any]]:
  """Opens training and validation; also returns which pictures each split has.

  A line of the log says where the test split will be missed.
  """
  train = run.data.train_pipeline(run.batch_size, run.seed, path)
  validation = run.data.open(run.data.validation, path, ALWAYS.minimum_side)
  test = run.data.look_for(run.data.test, path, ALWAYS.minimum_side)
  lists = {run.data.test: test.fingerprint} if test else {}
  lists[run.data.train] = train.fingerprint
  lists[run.data.validation] = validation.fingerprint
  return train, validation, lists


def images_of(run: settings.Settings, mesh: Mesh) -> jax.ShapeDtypeStruct:
  """The images of a batch, without their values."""
  return jax.ShapeDtypeStruct(
    (run.batch_size, run.data.side, run.data.side, 3),
    np.uint8,
    sharding=sharding.batch_sharding(mesh),
  )


def check_sizes(run: settings.Settings, mesh: Mesh) -> None:
  """Raises InputError where images are too small, or batches do not split."""
  if not run.data.whole:
    protocol.check_size(run.data.side, run.data.side)
  sharding.check_batch(run.batch_size, mesh, 'batch_size')
  sharding.check_batch(run.evaluation.batch_size, mesh, 'evaluation.batch_size')


def loop(
  work: Work, state: TrainState, train_step, checkpoints: Checkpoints
) -> TrainState:
  """Takes the steps that are left; saves, watches and stops when it is time."""
  run, start = work.run, int(state.step)
  step, batches = start, work.train.iterate(start)
  late = None  # metrics, looked at while the next step runs

  with Monitor(work.path, run, start) as monitor, stop_requests() as stop:

    def catch_up() -> None:
      """Looks at the last metrics: a state behind bad ones is never saved."""
      nonlocal late
      if late:
        settle(late, work, monitor)
      late = None

    def leave() -> None:
      """Saves what is new."""
      catch_up()
      if step > start:
        checkpoints.save(state)
      checkpoints.wait()
      if step < run.steps:
        said = f'saved step {step}' if step else 'nothing is left to save'
        logging.info(f'asked to stop: {said}')

    def rescue() -> None:
      leave()
      monitor.close()

    while step < run.steps and not stop.asked():
      with stop.rescuing(rescue):
        batch = monitor.time_waiting(lambda: next(batches))
      images = put_images(batch, work.mesh)
      state, metrics = train_step(state, images, work.perceptual_params)
      step += 1
      if late:
        settle(late, work, monitor)
      late = step, metrics
      save = step == run.steps or is_due(step, run.checkpoint_every)
      look = is_due(step, run.evaluate_every)
      if save or look:
        catch_up()
      if save:
        checkpoints.save(state)
      if look:
        with stop.rescuing(rescue):
          watch(work, state, monitor, stop)
    leave()
  return state


def put_images(batch: dict[str, np.ndarray], mesh: Mesh) -> jax.Array:
  """Puts this process's images of a batch on its devices."""
  return sharding.put_batch({'image': batch['image']}, mesh)['image']


def is_due(step: int, every: int) -> bool:
  """Whether something that happens every so many steps (0: never) is due."""
  return every > 0 and step % every == 0


def settle(late, work: Work, monitor: Monitor) -> None:
  """Looks at the metrics of a step, and stops the run if one is not finite."""
  step, metrics = late
  metrics = {name: float(x) for name, x in jax.device_get(metrics).items()}
  bad = [name for name, x in metrics.items() if not np.isfinite(x)]
  if not bad:
    monitor.step(step, metrics)
    return
  # Name the one that broke first in the pass: the code, then the pixels.
  term = next(x for x in [*work.terms, 'loss', *bad] if x in bad)
  kept = 'could not be kept'
  with optional('file of the batch'):
    batch = work.train.batch(step - 1)
    path = workdir.save_failure(work.path, step, term, batch)
    kept = f'is kept in {path}'
  raise TrainingError(
    f'{term} is {metrics[term]} at step {step}; the batch {kept}, '
    'and the last checkpoint is good'
  )


def watch(
  work: Work, state: TrainState, monitor: Monitor, stop: StopRequests
) -> None:
  """Measures the validation split, and keeps a picture of it.

  Raises:
    Abandoned: the run was asked to stop.
  """
  started = time.time()
  run, mesh, validation = work.run, work.mesh, work.validation
  variables = evaluation_variables(state)
  batches = run.data.evaluation_batches(
    validation, run.evaluation.batch_size, run.pad_multiple
  )
  results = protocol.evaluate(
    run.model, variables, stop.checked(batches), mesh, run.decoding
  )
  step = int(state.step)
  logging.info(
    'validation at step %d: %s (%.0f s)',
    step,
    protocol.one_line(results),
    time.time() - started,
  )
  monitor.write(step, protocol.scalars(results, 'validation'))
  stop.check()
  with optional('picture of the validation split'):
    draw(work, variables, step, monitor)
  monitor.restart_clock(step)


def draw(work: Work, variables: Any, step: int, monitor: Monitor) -> None:
  """Keeps a picture of the validation split."""
  run = work.run
  images = run.data.first_images(work.validation, run.evaluation.pictures)
  picture = reconstruction_figure(
    run.model, variables, images, work.mesh, run.decoding
  )
  if jax.process_index() == 0:
    folder = os.path.join(work.path, 'pictures')
    os.makedirs(folder, exist_ok=True)
    save_png(os.path.join(folder, f'{step}.png'), picture)
  monitor.picture(step, 'validation', picture)


def describe(run: settings.Settings, mesh: Mesh, state: TrainState) -> None:
  """Logs what is about to run, and where."""
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
  bits = run.bits_per_pixel
  lines = {
    'processes': jax.process_count(),
    'devices': f'{mesh.size} × {", ".join(kinds)}',
    'mesh': ' × '.join(f'{k}={v}' for k, v in mesh.shape.items()),
    'parameters': sizes,
    'code': f'{bits:.4g} bits per pixel' if bits else 'continuous',
    'state': f'{sharding.bytes_per_device(state):,} bytes per device',
    'steps': f'{int(state.step)} of {run.steps} done',
  }
  for name, text in lines.items():
    logging.info('%-10s %s', name, text)
