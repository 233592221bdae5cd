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

PLANES = 'planes'  # the key of their order, beside the fingerprints of data


@dataclasses.dataclass(frozen=True, eq=False)
class View:
  """Turns images of one size into a view, and a view into images.

  Attributes:
    model: the trained model.
    name: 'codes', 'z' or 'quantized'.
    side: of the square images.
    order: of the events of sparse codes.
    planes: of `Events`; None takes them as the code has them.
  """

  model: TrainedModel
  name: str
  side: int
  order: str = 'energy'
  planes: tuple[int, ...] | None = None

  @functools.cached_property
  def events(self) -> Events:
    """Returns the events of the model's codes.

    Raises:
      InputError: they have none.
    """
    module = self.model.module
    found = events_of(module, self.model.variables, self.side, self.order)
    planes = self.planes or found.planes
    return dataclasses.replace(found, planes=planes)

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

  def arranged(self, stored: np.ndarray) -> np.ndarray:
    """Returns a view in order, of one whose planes are as the code has them."""
    return stored if self.planes is None else stored[..., self.planes]

  @property
  def width(self) -> int:
    """Returns the numbers that the decoder receives for a site of the view."""
    module = self.model.module
    return module.encoder.D * _patch(module, self.side, self.sites) ** 2

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
  sites = module.coded_sites(side, side)
  return Events.of(module.bottleneck, sites, tables, order)


def view_of(model: TrainedModel, experiment: PriorExperiment) -> View:
  """Returns the view that a run models.

  Raises:
    InputError: the model's code has no events.
  """
  if model.experiment.data.whole:  # of any size; a view is of squares
    model = model.with_config(data={'whole': False})
  side = model.experiment.data.side
  view = View(model, experiment.view, side, experiment.order)
  if experiment.view == 'codes':
    view.events  # noqa: B018  raises where there are none
  return view


def with_planes(view: View, known: Mapping[str, Any]) -> View:
  """Returns a view of the planes that a workdir has in its data.json."""
  planes = known.get(PLANES, {}).get('order')
  return dataclasses.replace(view, planes=planes and tuple(planes))


def by_variance(view: View, first: np.ndarray) -> View:
  """Returns a view whose channels come in falling variance, by its `order`.

  Args:
    first: rows of the training view, of planes as the code has them.
  """
  if view.name != 'codes' or view.order != 'energy':
    return view
  planes = view.events.by_variance(first)
  changed = planes != view.events.planes
  return dataclasses.replace(view, planes=planes if changed else None)


def prior_of(experiment: PriorExperiment, view: View, classes: int) -> MapPrior:
  """Builds the module of a run."""
  given: dict[str, Any] = {'classes': classes, 'D': view.width}
  if view.name == 'codes':
    given['layout'] = view.events.layout
  return build_prior(experiment, sites=view.sites, **given)


def _patch(module: Autoencoder, side: int, sites: tuple[int, int]) -> int:
  """Returns the side of the patch of latents that is a site of a view."""
  return module.sites(side, side)[0] // sites[0]
