"""Views of images by a trained model: what a prior models, and back."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax import inference
from lasers_jax.bottlenecks.patches import to_patches
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

  @property
  def width(self) -> int:
    """Returns the numbers that the decoder receives for a site of the view."""
    bottleneck = self.model.module.bottleneck
    return bottleneck.D * _patch(self.model.module, self.side, self.sites) ** 2

  def by_site(self, quantized: np.ndarray) -> np.ndarray:
    """Returns what the decoder receives [n, ...] site by site of the view."""
    patch = _patch(self.model.module, self.side, self.sites)
    return np.asarray(to_patches(jnp.asarray(quantized), patch))

  def example(self) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of the view of one image."""
    if self.name == 'codes':
      planes = len(self.events.layout.sizes)
      return jax.ShapeDtypeStruct((1, *self.sites, planes), np.int32)
    return jax.ShapeDtypeStruct((1, *self.sites, self.width), np.float32)

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
  given: dict[str, Any] = {'classes': classes, 'D': view.width}
  if view.name == 'codes':
    given['layout'] = view.events.layout
  return build_prior(experiment, sites=view.sites, **given)


def _patch(module: Autoencoder, side: int, sites: tuple[int, int]) -> int:
  """Returns the side of the patch of latents that is a site of a view."""
  return module.sites(side, side)[0] // sites[0]
