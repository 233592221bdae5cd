"""Views of images by a trained model: what a prior models, and back."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np

from lasers_jax import inference
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.priors.settings import PriorExperiment, build_prior
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.priors.maps.base import MapPrior
from lasers_jax.priors.maps.events import Events


@dataclasses.dataclass(frozen=True, eq=False)
class View:
  """Turns images of one size into a view, and a view into images.

  Attributes:
    model: the trained model.
    name: 'codes', 'z' or 'quantized'.
    side: of the square images.
    order: of the events of sparse codes.
  """

  model: TrainedModel
  name: str
  side: int
  order: str = 'energy'

  @functools.cached_property
  def events(self) -> Events:
    """Returns the events of the model's codes.

    Raises:
      InputError: they have none.
    """
    module = self.model.module
    return events_of(module, self.model.variables, self.side, self.order)

  @property
  def sites(self) -> tuple[int, int]:
    """Returns H and W of the view."""
    if self.name == 'codes':
      return self.events.layout.sites
    return self.model.module.sites(self.side, self.side)

  def of(self, images: np.ndarray) -> np.ndarray:
    """Returns the view of images uint8 [n, side, side, 3].

    Returns:
      Events int32 [n, H, W, P], or latents float32 [n, H, W, D].
    """
    if self.name == 'codes':
      codes = jax.tree.map(np.asarray, self.model.encode(images))
      return self.events.record_batch(codes)
    if self.name == 'quantized':
      return self.model.latents(images)
    model = self.model
    return inference.encode_z(model.module, model.variables, images, model.mesh)

  def example(self) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of the view of one image."""
    if self.name == 'codes':
      planes = len(self.events.layout.sizes)
      return jax.ShapeDtypeStruct((1, *self.sites, planes), np.int32)
    width = self.model.module.bottleneck.D
    return jax.ShapeDtypeStruct((1, *self.sites, width), np.float32)

  def quantized(self, view: np.ndarray) -> np.ndarray:
    """Returns what the decoder receives of a view: float32 [n, H, W, D]."""
    model = self.model
    if self.name == 'quantized':
      return view
    if self.name == 'codes':
      codes = self.events.play_batch(np.asarray(view))
      found = inference.look_up(model.module, model.variables, codes)
    else:
      found = inference.snap(model.module, model.variables, view)
    return np.asarray(found)

  def images(self, view: np.ndarray) -> np.ndarray:
    """Returns the images of a view: uint8 [n, side, side, 3]."""
    size, model = (self.side, self.side), self.model
    if self.name == 'codes':
      return model.decode(self.events.play_batch(np.asarray(view)), size)
    if self.name == 'quantized':
      return model.decode_latents(view, size)
    return inference.decode_z(
      model.module, model.variables, view, model.mesh, model.decoding, size
    )


def events_of(
  module: Autoencoder, variables: Any, side: int, order: str
) -> Events:
  """Returns the events of the codes of square images.

  Raises:
    InputError: the codes have none.
  """
  own = {
    collection: parts['bottleneck']
    for collection, parts in variables.items()
    if 'bottleneck' in parts
  }
  tables = cast(
    Mapping[str, np.ndarray], module.bottleneck.apply(own, method='energies')
  )
  sites = module.sites(side, side)
  return Events.of(module.bottleneck, sites, tables, order)


def view_of(model: TrainedModel, experiment: PriorExperiment) -> View:
  """Returns the view that a run models.

  Raises:
    InputError: the model's code has no events.
  """
  data = model.experiment.data
  view = View(model, experiment.view, data.side, experiment.order)
  if experiment.view == 'codes':
    view.events  # noqa: B018  raises where there are none
  return view


def prior_of(experiment: PriorExperiment, view: View, classes: int) -> MapPrior:
  """Builds the module of a run."""
  given: dict[str, Any] = {'sites': view.sites, 'classes': classes}
  if view.name == 'codes':
    given['layout'] = view.events.layout
  else:
    given['D'] = view.model.module.bottleneck.D
  return build_prior(experiment, **given)
