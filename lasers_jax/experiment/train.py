"""Trains a model from a program."""

import os
from collections.abc import Mapping
from typing import Any

from lasers_jax.core.trees import merge
from lasers_jax.experiment.hooks import Hooks
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.loop import train_and_evaluate
from lasers_jax.experiment.model import TrainedModel


def train(
  config: Mapping[str, Any],
  workdir: str | os.PathLike,
  data: Any = None,
  hooks: Hooks | None = None,
) -> TrainedModel:
  """Trains a model, or resumes its run, and returns it.

  It prints nothing. `logging.basicConfig(level=logging.INFO)` before it shows
  how far the run is.

  Args:
    config: nested dictionaries, as `lasers_jax.config` returns them.
    workdir: the folder of the run; the same call resumes a run there.
    data: training images: any object with `len` and `[i]`, whose items are
      uint8 [h, w, 3] or {'image': ..., 'label': ...}; a dictionary of such
      objects with the keys 'train', 'validation' and 'test'; or the name of a
      data set. None takes the data set of the config.
    hooks: called at the turns of the run.

  Returns:
    The model of the last checkpoint; its `step` is below the config's `steps`
    where the run was asked to stop (Ctrl-C, SIGTERM).

  Raises:
    InputError: a user error.
    TrainingError: the loss is not finite.
  """
  workdir = os.fspath(workdir)
  if isinstance(data, str):
    named = {'data': {'name': data, 'options': {}}}
    config, data = merge(config, named), None
  train_and_evaluate(dict(config), workdir, data, hooks)
  return load(workdir)
