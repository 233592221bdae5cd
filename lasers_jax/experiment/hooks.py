"""Calls at the turns of a run, by which a program follows its training."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from lasers_jax.training.state import TrainState


class Hooks:
  """Receives calls at the turns of a run; a subclass overrides what it needs.

  Every process of a run makes the same calls. An error that a hook raises ends
  the run, and the last checkpoint is good.
  """

  def on_start(self, experiment: Any, mesh: Mesh, state: TrainState) -> None:
    """Receives the state before the first step, drawn or restored.

    The experiment is that of an autoencoder, or of a prior over maps.
    The first step donates its arrays: copy those that you keep.
    """

  def on_batch(self, step: int, batch: Mapping[str, Any]) -> None:
    """Receives the rows of this process before a step: `image` [b, h, w, 3]."""

  def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
    """Receives the metrics of a step, while the next step runs."""

  def on_validation(self, step: int) -> None:
    """Marks the moment before the validation split is measured."""

  def on_results(self, step: int, results: Mapping[str, Any]) -> None:
    """Receives the results of the validation split."""
