"""Calls into a program that trains: where a run can be watched."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from lasers_jax.experiment.settings import Experiment
from lasers_jax.training.state import TrainState


class Hooks:
  """Called at the turns of a run; a subclass overrides what it needs.

  Every process of a run makes the same calls, and what a hook raises ends the
  run: the last checkpoint is then good.
  """

  def on_start(
    self, experiment: Experiment, mesh: Mesh, state: TrainState
  ) -> None:
    """Called before the first step, with the state that the run goes on from.

    Its arrays are given to the first step: copy those that are to be kept.
    """

  def on_batch(self, step: int, batch: Mapping[str, Any]) -> None:
    """Called before a step, with this process's rows: `image` [b, h, w, 3]."""

  def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
    """Called with the metrics of a step, while the next one runs."""

  def on_validation(self, step: int) -> None:
    """Called before the validation split is measured."""

  def on_results(self, step: int, results: Mapping[str, Any]) -> None:
    """Called with the results of the validation split."""
