"""Opens the images of a split, which a program gives or a config names."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lasers_jax import data
from lasers_jax.errors import InputError, unknown
from lasers_jax.evaluation import degraded
from lasers_jax.experiment.settings import Experiment

ROLES = ('train', 'validation', 'test')
GIVEN = 'given'  # `data.name` of a run whose images a program gives


def by_role(given: Any) -> dict[str, data.Source]:
  """Returns the images that a program gives, as sources by their roles.

  Args:
    given: an object with `len` and `[i]` (the training images), or a
      dictionary of such objects; its keys are of ROLES.

  Raises:
    InputError: a key is unknown, there are no training images, or an object is
      no source.
  """
  if not isinstance(given, Mapping):
    given = {'train': given}
  for role in given:
    if role not in ROLES:
      raise unknown('a key of data', role, ROLES)
  if 'train' not in given:
    raise InputError("data has no images to train on: data={'train': ...}")
  return {role: data.as_source(x, role) for role, x in given.items()}


def mark_given(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config that records that a program gives the images."""
  section = config.get('data', {})
  if not isinstance(section, Mapping):
    return dict(config)  # `from_config` raises the error.
  return {**config, 'data': {**section, 'name': GIVEN, 'options': {}}}


def sample_batches(
  experiment: Experiment, source: Any, count: int
) -> Iterator[dict[str, np.ndarray]]:
  """Yields batches of some images of a source, evenly spread over all.

  Of a restoration they are what the encoder sees of degraded ones.

  Args:
    count: of images, at most.
  """
  numbers = np.linspace(0, len(source) - 1, min(len(source), count))
  batches = experiment.data.evaluation_batches(
    [source[i] for i in numbers.astype(int)],
    experiment.evaluation.batch_size,
    experiment.model.pad_multiple,
  )
  degradation = experiment.degradation
  return degraded.inputs_of(degradation, batches) if degradation else batches


def open_split(
  experiment: Experiment, split: str, workdir: str | None, minimum_side: int = 1
) -> data.Source:
  """Opens a split that the config names; see `DataSettings.open`.

  Raises:
    InputError: it cannot be used, or a program gave the images of the run.
  """
  if experiment.data.name == GIVEN:
    raise InputError(
      'the images of this run were given by a program (data=...): give them '
      'again, or name others'
    )
  return experiment.data.open(split, workdir, minimum_side)
