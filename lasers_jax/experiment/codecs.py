"""Fits the states of a model's codec once, and finds them in its folder."""

import fnmatch
import itertools
import logging
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lasers_jax.bottlenecks.base import Bottleneck, continuous
from lasers_jax.codec.model import (
  LEVELS,
  fit_levels,
  fit_tables,
  with_levels,
)
from lasers_jax.codec.state import State, as_bytes, load_kept, save
from lasers_jax.codec.state import load as load_state
from lasers_jax.core import ranges, storage
from lasers_jax.core.ranges import Whole
from lasers_jax.core.storage import held, writing
from lasers_jax.decoders import DEFAULT
from lasers_jax.errors import InputError
from lasers_jax.experiment.shipped import own_folder
from lasers_jax.networks.autoencoder import Autoencoder

FITTED_TO = 5_000  # images of the training split


class Choice(NamedTuple):
  """The settings of an encoder that may differ from training.

  Attributes:
    changes: values of fields of the bottleneck; empty is as trained.
    levels: a name in LEVELS: the method that finds levels of coefficients.
    context: whether a context model predicts codes from those around them.
  """

  changes: Mapping[str, Any] = {}
  levels: str = 'lloyd'
  context: bool = False

  @property
  def fits_levels(self) -> bool:
    """Returns whether coefficients need other levels than in training."""
    return bool(self.changes.keys() - {'step', 'price'})

  @property
  def file(self) -> str:
    """Returns the name of the file of its state."""
    parts = [f'{name}{x}' for name, x in sorted(self.changes.items())]
    parts += [self.levels] if self.fits_levels else []
    parts += ['context'] if self.context else []
    return '-'.join(['codec', *parts]) + '.npz'


AS_TRAINED = Choice()


def stored_state(folder: str, choice: Choice, weights: str) -> State | None:
  """Reads the stored state of a choice; None where there is none yet.

  Raises:
    InputError: the file is damaged, or of other changes.
  """
  file = os.path.join(folder, choice.file)
  return load_kept(file, weights, dict(choice.changes))


def no_state(bottleneck: Bottleneck, folder: str, choice: Choice) -> InputError:
  """Returns the error for a choice whose codec is not fitted yet."""
  if bottleneck.bits_per_site is None:
    return continuous(bottleneck)
  words = 'context=True' if choice.context else ''
  return InputError(
    f'no {choice.file} of these weights in {folder}: model.fit_codec({words}) '
    'counts the codes of training images, and so does lasers-jax codec encode '
    f'--model={folder}'
  )


def _not_fitted(folder: str, choice: Choice, why: InputError) -> InputError:
  """Returns the error for a new choice without images to fit it to."""
  there = ', '.join(map(os.path.basename, state_files(folder)))
  return InputError(
    f'no {choice.file} in {folder} (there: {there or "none"}), and no images '
    f'to fit it to: {why}'
  )


def file_version(folder: str, choice: Choice) -> tuple[str, Hashable] | None:
  """Returns the version of the file of a choice; None without a file."""
  found = storage.version(os.path.join(folder, choice.file))
  return None if found is None else (choice.file, found)


def fit_state(
  module: Autoencoder,
  variables: Any,
  batches: Iterable[dict],
  choice: Choice,
  weights: str,
) -> State:
  """Fits tables of the probability of codes, and levels, to images.

  Args:
    module: the model with the changes of the choice.
    batches: of `evaluation_batches`.
    weights: hash of the variables.
  """
  batches, levels = list(batches), None
  if choice.fits_levels:
    levels = fit_levels(module, variables, batches, LEVELS[choice.levels])
    variables = with_levels(variables, levels)
  tables = fit_tables(module, variables, batches, choice.context)
  return State(weights, dict(choice.changes), tables, levels)


def new_state(model: Any, choice: Choice, source: Any = None) -> State:
  """Fits the state of a choice to images, and keeps it with the model.

  Args:
    model: a TrainedModel with the changes of the choice.
    source: of the images; None takes training images.

  Raises:
    InputError: there are none, or the model comes with the package.
  """
  logging.info('counting the codes of images for %s', choice.file)
  try:
    batches = list(model.sample_batches(FITTED_TO, source))
  except InputError as error:
    raise _not_fitted(model.path, choice, error) from error
  folder = own_folder(model.folder, None)
  state = fit_state(
    model.module, model.variables, batches, choice, model.weights
  )
  return store_state(folder, choice, state)


def store_state(folder: str, choice: Choice, state: State) -> State:
  """Writes a state into a folder, and returns it or an earlier one there."""
  file = os.path.join(folder, choice.file)
  kept = None
  # Files of a state that was replaced would have no decoder.
  storage.make_folder(folder)  # that of a file is not there
  with writing(folder), held(os.path.join(folder, '.codec.lock')):
    while kept is None:
      known = storage.version(file)
      kept = stored_state(folder, choice, state.weights)
      kept = kept or _saved(file, state, known)
  return kept


def _saved(file: str, state: State, known: Hashable) -> State | None:
  """Writes a state; None where another was first, which locks do not forbid."""
  if not storage.is_remote(file):
    save(file, state)
  elif not storage.written_if(file, as_bytes(state), known):
    return None
  logging.info('decoding requires %s: keep it with the model', file)
  return state


def state_files(folder: str) -> list[str]:
  """Lists the files of states in a folder."""
  names = storage.names(folder) if storage.is_folder(folder) else []
  found = fnmatch.filter(names, 'codec*.npz')
  return [os.path.join(folder, name) for name in found]


def states_of(
  folder: str, weights: str, changes: Mapping[str, Any]
) -> list[str]:
  """Lists the files of states that fit a model with some changes.

  A state records every change. One that lacks a change of the model is of
  another code.
  """
  states = {file: load_state(file) for file in state_files(folder)}
  return [
    file
    for file, state in states.items()
    if state.weights == weights and changes.keys() <= state.changes.keys()
  ]


def named_state(folder: str, name: bytes, weights: str) -> tuple[State, str]:
  """Finds the state of a name among those of a folder.

  Args:
    name: `State.hash`, which a compressed file holds.

  Returns:
    The state, and its file.

  Raises:
    InputError: there is no such state of these weights, or one is damaged.
  """
  for file in state_files(folder):
    state = load_state(file)
    if state.hash() == name and state.weights == weights:
      return state, file
  raise InputError(
    f'of another model: no codec*.npz in {folder} is {name.hex()} and of its '
    'weights; bring the one that was made when the file was encoded'
  )


def choices_of(
  values: Mapping[str, Sequence[Any] | None],
  levels: str = 'lloyd',
  context: bool = False,
) -> list[Choice]:
  """Returns all combinations of values, such as each S with each bit depth.

  Args:
    values: of fields of the bottleneck; None is as trained.
  """
  some = [x or [None] for x in values.values()]
  return [
    Choice(
      {k: x for k, x in zip(values, row, strict=True) if x is not None},
      levels,
      context,
    )
    for row in itertools.product(*some)
  ]


def check_search(model: Any, rounds: int) -> None:
  """Raises InputError where a decoder cannot improve codes in such rounds.

  Args:
    model: a TrainedModel with the changes of the encoder.
  """
  ranges.check(rounds, Whole, 'search')
  if not rounds:
    return
  decoder = model.config.get('decoder', DEFAULT)['name']
  why = ''
  if not model.module.bottleneck.chooses:
    why = 'a price of bits, which priced and entropy have (--price above 0)'
  elif decoder != 'plain':
    why = "a decoder of one pass: decoder.name='plain'"
  elif model.experiment.degradation is not None:
    why = 'the original image, and this model restores degraded ones'
  if why:
    raise InputError(f'a search requires {why}')


def other_values(
  values: Mapping[str, Any], bottleneck: Bottleneck
) -> dict[str, Any]:
  """Returns those values of fields that a bottleneck does not have already."""
  return {
    name: value
    for name, value in values.items()
    if not hasattr(bottleneck, name) or getattr(bottleneck, name) != value
  }
