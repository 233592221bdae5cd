"""Takes the steps of a run: waits for data, logs, saves, validates, stops."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from lasers_jax.errors import TrainingError, optional
from lasers_jax.experiment.hooks import Hooks
from lasers_jax.training import workdir
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.lease import Lease
from lasers_jax.training.monitor import Monitor
from lasers_jax.training.stop import StopRequests, stop_requests


class Batches(Protocol):
  """This process's rows of batches: pure functions of the step."""

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """Returns those of a step."""
    ...

  def iterate(self, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields those of a step and all after it."""
    ...


class Stepping(NamedTuple):
  """What the steps of a run are made of.

  Attributes:
    run: has steps, batch_size, log_every, evaluate_every, checkpoint_every and
      tensorboard.
    path: the workdir.
    batches: of the training data.
    advance: (state, batch) -> (state, metrics). It may donate the state.
    validate: (state, monitor, stop), called every `evaluate_every` steps.
    terms: of the loss, in the order of a step.
    hooks: called at the turns of the run.
    lease: of the workdir; of the process that leads.
  """

  run: Any
  path: str
  batches: Batches
  advance: Callable[[Any, dict[str, np.ndarray]], tuple[Any, Any]]
  validate: Callable[[Any, Monitor, StopRequests], None]
  terms: list[str]
  hooks: Hooks
  lease: Lease | None


def take_steps(stepping: Stepping, state: Any, checkpoints: Checkpoints) -> Any:
  """Takes the remaining steps; saves and validates when due.

  Returns:
    The last state; its step is below `steps` where the run was asked to stop.
  """
  run, start = stepping.run, int(state.step)
  step, batches = start, stepping.batches.iterate(start)
  pending = None  # metrics of the last step, read while the next one runs

  with (
    Monitor(stepping.path, run, start) as monitor,
    stop_requests() as stop,
  ):

    def catch_up() -> None:
      """Reads the pending metrics: a state behind bad ones is never saved."""
      nonlocal pending
      if pending:
        check_and_log(*pending, stepping, monitor)
      pending = None
      monitor.flush()

    def save_and_leave() -> None:
      """Saves the state, if it is new, before the run ends."""
      catch_up()
      if step > start:
        checkpoints.save(state)
      checkpoints.wait()
      if step < run.steps:
        said = f'saved step {step}' if step else 'nothing is left to save'
        logging.info(f'asked to stop: {said}')

    def rescue() -> None:
      save_and_leave()
      monitor.close()
      if stepping.lease:
        stepping.lease.release()

    while step < run.steps and not stop.asked():
      with stop.rescuing(rescue):
        batch = monitor.time_waiting(lambda: next(batches))
        stepping.hooks.on_batch(step + 1, batch)
      state, metrics = stepping.advance(state, batch)
      step += 1
      if pending:
        check_and_log(*pending, stepping, monitor)
      pending = step, metrics
      saves = step == run.steps or is_due(step, run.checkpoint_every)
      validates = is_due(step, run.evaluate_every)
      if saves or validates:
        catch_up()
      if saves:
        checkpoints.save(state)
      if validates:
        with stop.rescuing(rescue):
          stepping.validate(state, monitor, stop)
    save_and_leave()
  return state


def is_due(step: int, every: int) -> bool:
  """Returns whether an act of every so many steps (0: never) is due."""
  return every > 0 and step % every == 0


def check_and_log(
  step: int, metrics: Any, stepping: Stepping, monitor: Monitor
) -> None:
  """Logs the metrics of a step; ends the run if one of them is not finite."""
  metrics = {name: float(x) for name, x in jax.device_get(metrics).items()}
  bad = [name for name, x in metrics.items() if not np.isfinite(x)]
  if not bad:
    monitor.step(step, metrics)
    stepping.hooks.on_step(step, metrics)
    return
  # Name the one that broke first in the pass.
  term = next(x for x in [*stepping.terms, 'loss', *bad] if x in bad)
  kept = 'could not be kept'
  with optional('file of the batch'):
    batch = stepping.batches.batch(step - 1)
    path = workdir.save_failure(stepping.path, step, term, batch)
    kept = f'is kept in {path}'
  raise TrainingError(
    f'{term} is {metrics[term]} at step {step}; the batch {kept}, '
    'and the last checkpoint is good'
  )
