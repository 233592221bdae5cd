"""The codec of a trained model, for a choice of settings or for a file."""

import functools
import glob
import itertools
import logging
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lasers_jax import inference
from lasers_jax.codec.coder import range_coder
from lasers_jax.codec.model import (
  LEVELS,
  ModelCodec,
  fit_levels,
  fit_tables,
  with_levels,
)
from lasers_jax.codec.state import State, load_kept, save
from lasers_jax.codec.state import load as load_state
from lasers_jax.core.files import (
  held,
  writing,
)
from lasers_jax.errors import InputError
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.model import load as load_workdir

FITTED_TO = 5_000  # images of the training split


class Choice(NamedTuple):
  """How to encode, where not as trained; None is as trained."""

  S: int | None = None
  coefficient_bits: int | None = None
  residual_norm: float | None = None
  quantizer_step: float | None = None
  levels: str = 'lloyd'  # of LEVELS
  pursuit: str | None = None
  context: bool = False  # whether what is around tells what is probable

  @property
  def changes(self) -> dict[str, Any]:
    """What changes of the bottleneck's fields."""
    fields = {
      'S': self.S,
      'coefficient_bits': self.coefficient_bits,
      'pursuit': self.pursuit,
      'residual_norm': self.residual_norm,
      'step': self.quantizer_step,
    }
    return {name: x for name, x in fields.items() if x is not None}

  @property
  def fits_levels(self) -> bool:
    """Whether coefficients are of other sizes than in training."""
    return bool(self.changes.keys() - {'residual_norm', 'step'})

  @property
  def file(self) -> str:
    """The name of its state in a workdir."""
    parts = [f'{name}{x}' for name, x in self.changes.items()]
    parts += [self.levels] if self.fits_levels else []
    parts += ['context'] if self.context else []
    return '-'.join(['codec', *parts]) + '.npz'


AS_TRAINED = Choice()


def open_encoder(path: str, choice: Choice = AS_TRAINED) -> ModelCodec:
  """Reads a workdir, and its state for a choice; or makes it, and keeps it.

  Raises:
    InputError: something that the user can mend.
  """
  range_coder()  # whether there is one, before codes are counted
  model = load_workdir(path, bottleneck_changes=choice.changes)
  weights = inference.weights_hash(model.variables)
  file = os.path.join(path, choice.file)
  kept = functools.partial(load_kept, file, weights, choice.changes)
  state = kept()
  if state is None:
    logging.info('fitting %s to training images', file)
    fitted = fit(model, choice, weights, path)
    # Who is first wins: files of a state that was replaced have no decoder.
    lock = os.path.join(path, '.codec.lock')
    with writing(path), held(lock):
      state = kept()
      if state is None:
        state = fitted
        save(file, state)
  return build(model, state, file)


def fit(model: TrainedModel, choice: Choice, weights: str, path: str) -> State:
  """Counts how probable codes of training images are, encoded by a choice."""
  autoencoder, variables = model.run.model, model.variables
  batches, levels = list(training_batches(model, path)), None
  if choice.fits_levels:
    find = LEVELS[choice.levels]
    levels = fit_levels(autoencoder, variables, batches, find)
    variables = with_levels(variables, levels)
  tables = fit_tables(autoencoder, variables, batches, choice.context)
  return State(weights, choice.changes, tables, levels)


def open_decoder(path: str, name: bytes) -> ModelCodec:
  """Reads a workdir, and of its states the one that a file names.

  Raises:
    InputError: there is no such state of its weights, or one is damaged.
  """
  for file in sorted(glob.glob(os.path.join(glob.escape(path), 'codec*.npz'))):
    state = load_state(file)
    if state.hash() == name:
      model = load_workdir(path, bottleneck_changes=state.changes)
      if state.weights == inference.weights_hash(model.variables):
        return build(model, state, file)
  raise InputError(
    f'of another model: no codec*.npz in {path} is {name.hex()} and of its '
    'weights; bring the one that was made when the file was encoded'
  )


def build(model: TrainedModel, state: State, file: str) -> ModelCodec:
  """Makes the codec of a model and a state; InputError names its file."""
  _, run, mesh, _, variables = model
  try:
    return ModelCodec(run.model, variables, mesh, run.decoding, state)
  except InputError as error:
    raise InputError(
      f'{file} is damaged: {error}; remove it, and encode again'
    ) from error


def training_batches(model: TrainedModel, path: str) -> Iterator[dict]:
  """Images of the training split, spread over all of it."""
  run = model.run
  source = run.data.open(run.data.train, path)
  n = min(len(source), FITTED_TO)
  numbers = np.linspace(0, len(source) - 1, n).astype(int)
  return run.data.evaluation_batches(
    [source[i] for i in numbers], run.evaluation.batch_size, run.pad_multiple
  )


def choices_of(
  numbers: list[int | None] | None,
  coefficient_bits: list[int | None] | None,
  residual_norms: list[float | None] | None,
  quantizer_steps: list[float | None] | None,
  *others: Any,
) -> list[Choice]:
  """All that flags name: each S with each number of bits, and so on."""
  each = numbers, coefficient_bits, residual_norms, quantizer_steps
  values = [x or [None] for x in each]
  return [Choice(*some, *others) for some in itertools.product(*values)]
