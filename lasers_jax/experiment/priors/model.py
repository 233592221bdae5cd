"""Trained priors: one value that draws, completes and measures images."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lasers_jax import inference
from lasers_jax.codec.coder import range_coder
from lasers_jax.codec.container import HASH_BYTES
from lasers_jax.codec.prior_codec import PriorCodec
from lasers_jax.codec.prior_walk import PriorWalk
from lasers_jax.core import ranges, sharding
from lasers_jax.core.images import check_images, check_one
from lasers_jax.errors import InputError, unknown
from lasers_jax.experiment import exported, sections
from lasers_jax.experiment.foreign import with_images
from lasers_jax.experiment.loading import find, load
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.priors import exporting, running, settings
from lasers_jax.experiment.priors.labels import CLASSES, find_class
from lasers_jax.experiment.priors.settings import PriorExperiment
from lasers_jax.experiment.priors.views import (
  View,
  prior_of,
  view_of,
  with_planes,
)
from lasers_jax.priors.maps.autoregressive import Autoregressive
from lasers_jax.priors.maps.base import DrawingSettings, Known, MapPrior
from lasers_jax.training import workdir
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.prior_step import prior_state_shapes
from lasers_jax.training.state import evaluation_variables


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrainedPrior:
  """A trained prior and the model of its view.

  Attributes:
    experiment: the objects built from the config.
    prior: the Flax module.
    variables: averaged parameters and statistics.
    view: of the images of the model.
    names: of the classes; [] without labels.
    mesh: the devices to compute on.
    step: the step of the checkpoint.
    path: the workdir.
    drawing: how it draws.
    config: nested dictionaries, as in training.
  """

  experiment: PriorExperiment
  prior: MapPrior
  variables: Any
  view: View
  names: Sequence[str]
  mesh: Mesh
  step: int
  path: str
  drawing: DrawingSettings
  config: Mapping[str, Any]

  def __repr__(self) -> str:
    model = self.view.model
    return f'<TrainedPrior {self.path!r}: {self.name} of {model!r}>'

  @property
  def name(self) -> str:
    """Returns the name of the prior: ar, masked or flow."""
    return self.config['prior']['name']

  @property
  def can_complete(self) -> bool:
    """Returns whether sites may be given: a prior of codes draws the rest."""
    return self.view.name == 'codes'

  @property
  def weights(self) -> str:
    """Returns the hash of the variables: 16 hexadecimal digits."""
    return inference.weights_hash(self.variables)

  def with_drawing(self, **fields: Any) -> 'TrainedPrior':
    """Returns the prior with other settings of drawing, such as guidance=2.

    Raises:
      InputError: it has no such setting, or a value cannot be used.
    """
    kind = type(self.drawing)
    values = {**dataclasses.asdict(self.drawing), **fields}
    drawing = sections.build(kind, values, 'drawing')
    self.prior.check_drawing(drawing)
    return dataclasses.replace(self, drawing=drawing)

  def with_words(self, words: Sequence[str]) -> 'TrainedPrior':
    """Returns the prior with settings of drawing such as 'guidance=2'.

    Raises:
      InputError: as of `with_drawing`.
    """
    kinds = sections.fields_of(type(self.drawing))
    values = {}
    for word in words:
      name, equals, text = word.partition('=')
      if not equals or name not in kinds:
        raise unknown('a setting of drawing', name, kinds)
      try:
        values[name] = ranges.read(text, kinds[name].type)
      except ValueError as error:
        raise InputError(f'drawing: {name} is {text!r}: {error}') from error
    return self.with_drawing(**values)

  def labels(self, words: Sequence[str]) -> np.ndarray:
    """Returns the labels of classes, by their names or numbers.

    Raises:
      InputError: there is no such class.
    """
    return np.array([find_class(word, self.names) for word in words], np.int32)

  def balanced_labels(self, n: int) -> np.ndarray:
    """Returns n labels, all classes alike often; "no class" without labels."""
    return np.arange(n, dtype=np.int32) % max(self.prior.classes, 1)

  def draw(
    self,
    labels: np.ndarray,
    seed: int = 0,
    indices: np.ndarray | None = None,
    known: Known | None = None,
  ) -> np.ndarray:
    """Draws views: NumPy [n, H, W, ...]; see `running.draw`.

    Raises:
      InputError: a label is of no class.
    """
    labels, classes = np.asarray(labels), self.prior.classes
    integers = labels.ndim == 1 and labels.dtype.kind in 'iu'
    if not integers or not np.all((labels >= 0) & (labels <= classes)):
      raise InputError(
        f'labels must be a list of integers from 0 to {classes}, where '
        f'{classes} is no class (see `labels`): {np.ravel(labels)[:4].tolist()}'
      )
    return running.draw(
      self.prior,
      self.variables,
      labels,
      self.drawing,
      seed,
      self.mesh,
      indices,
      known,
    )

  def images(self, view: np.ndarray) -> np.ndarray:
    """Returns the images of views: uint8 [n, side, side, 3]."""
    return self.view.images(view)

  def complete(
    self,
    images: Any,
    given: np.ndarray,
    labels: np.ndarray,
    seed: int = 0,
  ) -> np.ndarray:
    """Draws what is not given of images: uint8 [n, side, side, 3].

    The sites of the latent of which every pixel is given stay, the others are
    drawn. A site's code depends on pixels around it, so that the encoder sees
    what is not given as grey.

    Args:
      images: uint8 or float in [0, 1], [n, side, side, 3].
      given: bool [side, side], True for pixels that are given.
      labels: int [n].
    """
    images, side = check_images(images), self.view.side
    if images.shape[1:3] != (side, side) or given.shape != (side, side):
      raise InputError(
        f'the prior draws images of {side}x{side} pixels, not '
        f'{images.shape[1]}x{images.shape[2]}'
      )
    if len(images) != len(labels):
      raise InputError(f'{len(labels)} labels for {len(images)} images')
    grey = np.array(128 if images.dtype == np.uint8 else 0.5, images.dtype)
    seen = np.where(given[..., None], images, grey)
    sites = self.known_sites(given)
    known = Known(
      self.view.of(seen), np.broadcast_to(sites, (len(images), *sites.shape))
    )
    return self.images(self.draw(labels, seed, known=known))

  def known_sites(self, given: np.ndarray) -> np.ndarray:
    """Returns the sites all of whose pixels are given: bool [H, W].

    Args:
      given: bool [side, side].
    """
    (height, width), side = self.view.sites, self.view.side
    cells = given.reshape(height, side // height, width, side // width)
    return np.asarray(cells.all(axis=(1, 3)))

  def compress(self, image: Any) -> bytes:
    """Returns the file of an image, as `codec encode --prior` writes it.

    Its codes are coded by the probabilities that an `ar` prior gives them, and
    without the class. `decompress` reads it on the same kind of machine.

    Args:
      image: uint8 [side, side, 3].

    Raises:
      InputError: the image has another size, or the prior is another one.
    """
    image, side = check_one(image), self.view.side
    if image.shape[:2] != (side, side):
      raise InputError(
        f'the image has {image.shape[0]}x{image.shape[1]} pixels, and the '
        f'prior is of {side}x{side}: crop or resize it before'
      )
    return self._codec.write(self.view.of(image[None])[0])

  def decompress(self, data: bytes) -> np.ndarray:
    """Returns the image of the bytes of a file: uint8 [side, side, 3].

    Raises:
      InputError: the file is damaged, of another prior, or was written where
        the prior's numbers have other last bits.
    """
    return self.images(self._codec.read(data)[None])[0]

  def export(
    self, folder: str | os.PathLike, half: bool = False, licence: str = ''
  ) -> None:
    """Writes the prior into a folder that needs no checkpoint.

    `load_prior` reads it, with the model that it is of from where that was in
    training. An exported prior in the folder is replaced; any other content is
    refused. The folder is written whole or not at all.

    Args:
      half: whether to round the weights to float16: half the bytes, and other
        files than the prior writes.
      licence: of the prior, for its card.

    Raises:
      InputError: the folder cannot be written, or hold the prior.
    """
    exporting.write(self, os.fspath(folder), half, licence)

  @functools.cached_property
  def _codec(self) -> PriorCodec:
    """Returns what writes and reads files.

    Raises:
      InputError: the prior gives no probabilities of codes without a class.
    """
    prior = self.prior
    if not isinstance(prior, Autoregressive):
      raise InputError(
        f'{self.path} is a prior {self.name}, which gives codes no exact '
        'probabilities: files need a prior ar'
      )
    if prior.classes and not prior.label_dropout:
      raise InputError(
        f'{self.path} was trained with prior.label_dropout=0, and codes are '
        'coded without the class: train a prior with more of it'
      )
    range_coder()  # raises where none is installed, before programs compile
    weights = f'{self.weights} {self.view.model.weights}'
    return PriorCodec(
      PriorWalk(prior, self.variables, self.mesh.local_devices[0]),
      hashlib.sha256(weights.encode()).digest()[:HASH_BYTES],
      self.view.side,
    )


def load_prior(
  path: str | os.PathLike,
  checkpoint: int | None = None,
  model: TrainedModel | None = None,
) -> TrainedPrior:
  """Reads a trained prior, and the model that it is of.

  Args:
    path: the workdir of the prior or the folder of an exported one, or the name
      of one that comes with the package, as in `lasers_jax.models()`.
    checkpoint: of a workdir, its step; None takes the newest that is whole.
    model: that of the prior; None loads it from where it was in training.

  Raises:
    InputError: there is no such prior, it is damaged, or the model has other
      weights than in training.
  """
  path = find(os.fspath(path))
  is_exported = exported.is_exported(path)
  if is_exported and checkpoint is not None:
    raise InputError(
      f'{path} is an exported prior and has no checkpoints: leave out the '
      f'checkpoint {checkpoint}'
    )
  path = path if is_exported else workdir.locate(path)
  config = settings.load_config(path)
  experiment = settings.from_config(config)
  stage_one = experiment.stage_one
  model = model or load(stage_one.path)
  model = with_images(model, stage_one.data, stage_one.side)
  check_model(model, stage_one.weights, path)
  known = workdir.load_fingerprints(path)
  view = with_planes(view_of(model, experiment), known)
  names = known.get(CLASSES, {}).get('names', [])
  prior = prior_of(experiment, view, len(names))
  if is_exported:
    variables, step = exporting.read(path, prior, view.example(), model.mesh)
  else:
    variables, step = _restore(experiment, prior, view, path, checkpoint, model)
  return TrainedPrior(
    experiment,
    prior,
    variables,
    view,
    names,
    model.mesh,
    step,
    path,
    experiment.drawing,
    config,
  )


def check_model(model: TrainedModel, weights: str, path: str) -> None:
  """Raises InputError where a model is not that of a prior."""
  if model.weights != weights:
    raise InputError(
      f'{path} is a prior over a model with weights {weights}, and '
      f'{model.path} has {model.weights}'
    )


def _restore(
  experiment: PriorExperiment,
  prior: MapPrior,
  view: View,
  path: str,
  checkpoint: int | None,
  model: TrainedModel,
) -> tuple[Mapping[str, Any], int]:
  """Reads the variables of a checkpoint, and its step."""
  optimizer = make_optimizer(experiment.optimizer, experiment.steps)
  shapes = prior_state_shapes(prior, optimizer, view.example())
  places = jax.tree.map(lambda _: sharding.replicated(model.mesh), shapes)
  with Checkpoints(path, read_only=True) as checkpoints:
    state = checkpoints.restore(
      sharding.with_shardings(shapes, places), checkpoint
    )
  if state is None:
    raise InputError(f'{path} has no checkpoint yet')
  return evaluation_variables(state), int(state.step)
