"""Takes the code of one image apart, for a page that shows it."""

import math
import os

import numpy as np

from lasers_jax.bottlenecks.parts import Parts
from lasers_jax.core import provenance
from lasers_jax.core.images import check_one, crop_center
from lasers_jax.core.storage import absolute, write_text, writing
from lasers_jax.errors import InputError
from lasers_jax.experiment import part_pictures
from lasers_jax.experiment.code_rates import Coded, nominal_bits, rates
from lasers_jax.experiment.codec_files import read_picture
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.report import explore as page
from lasers_jax.report.document import Origin
from lasers_jax.report.explore import LISTED, Code, Exploration, Use

LARGEST = 256  # pixels along a side; of larger images the middle is explored
ADDED = 8  # parts of a site that have pictures of what they add, at most
ALONE = 1024  # parts that are decoded alone, at most


def write_page(model: TrainedModel, file: str, output: str) -> str:
  """Writes the page of the code of an image, and returns its path.

  Raises:
    InputError: as `explore`, or a file cannot be read or written.
  """
  output = absolute(output)
  try:
    image = read_picture(absolute(file))
  except InputError as error:
    raise InputError(f'{file}: {error}') from error
  found = explore(model, image, os.path.basename(file))
  versions = provenance.versions(provenance.commit())
  origin = Origin(model.config, [], versions, provenance.command())
  with writing(output):
    write_text(output, page.render(found, origin))
  return output


def explore(
  model: TrainedModel, image: np.ndarray, name: str = 'an image'
) -> Exploration:
  """Takes the code of an image apart, and decodes it by fewer bits.

  A code that counts its parts (S atoms, levels) is decoded with the first ones
  of each site. One with a price of bits is coded anew at the steps that the
  model has codecs of, and at other prices. Of images above 256 pixels a side,
  the middle is taken.

  Args:
    image: uint8 [h, w, 3].
    name: of the image, for the page.

  Raises:
    InputError: the code is continuous, the model restores degraded images, or
      bits have a price and no codec says how many there are.
  """
  _check(model)
  whole = check_one(image)
  image = np.ascontiguousarray(crop_center(whole, LARGEST, LARGEST))
  found = rates(model, image)
  main = found.codes[found.stops[found.start].code]
  parts, added = main.parts, None
  if parts.rows.size:
    added = part_pictures.added(model.module, model.variables, parts, ADDED)
  return Exploration(
    title=f'The code of {name}',
    image=image,
    stride=model.module.stride,
    slider=found.slider,
    stops=found.stops,
    start=found.start,
    codes=[_listed(x) for x in found.codes],
    names=parts.names,
    added=added,
    use=_use(model, parts),
    nominal=_site_bits(model, image),
    size=found.size,
    facts=_facts(model, image),
    remarks=_remarks(whole, image),
  )


def _check(model: TrainedModel) -> None:
  """Raises InputError where there is nothing to explore."""
  bottleneck = model.module.bottleneck
  if bottleneck.bits_per_site is None:
    raise InputError(
      f'{type(bottleneck).__name__} has a continuous code: there are no atoms '
      'or codes to explore; take a model with a discrete one'
    )
  if model.experiment.degradation is not None:
    raise InputError(
      f'{model.path} restores degraded images, and its code is not that of an '
      'image as it is: take a model without a section degradation'
    )


def _listed(coded: Coded) -> Code:
  """Returns the first parts of each site."""
  indices, amounts = coded.parts[:2]
  counts = (amounts != 0).sum(axis=-1)
  return Code(indices[..., :LISTED], amounts[..., :LISTED], counts, coded.bits)


def _use(model: TrainedModel, parts: Parts) -> Use:
  """Counts the parts in use, and decodes those alone that are used most."""
  used = parts.amounts != 0
  total = sum(count for _, count in parts.names)
  counts = np.bincount(parts.indices[used], minlength=total)
  order = np.argsort(-counts, kind='stable')[:ALONE]
  numbers = order[counts[order] > 0]
  shown = numbers if parts.rows.size else numbers[:0]
  pictures = part_pictures.alone(model.module, model.variables, parts, shown)
  each = np.concatenate([np.where(used, x, 0) for x in parts[:2]], axis=-1)
  patterns = np.unique(each.reshape(-1, each.shape[-1]), axis=0)
  return Use(counts, pictures, shown, len(patterns))


def _site_bits(model: TrainedModel, image: np.ndarray) -> float:
  """Returns the bits of a site by a code of fixed length."""
  size = image.shape[:2]
  sites = math.prod(model.module.coded_sites(*size))
  return nominal_bits(model.module, size) / sites


def _facts(model: TrainedModel, image: np.ndarray) -> list[tuple[str, str]]:
  """Returns what the page says of the model."""
  module, bits = model.module, _site_bits(model, image)
  height, width = module.coded_sites(*image.shape[:2])
  return [
    ('Model', os.path.basename(os.path.normpath(model.path))),
    ('Bottleneck', str(model.config['bottleneck']['name'])),
    ('Sites', f'{height} × {width}, each of {module.stride} pixels a side'),
    (
      'Nominal bits',
      f'{bits:.4g} a site, {bits / module.stride**2:.4g} a pixel',
    ),
    ('Step of training', f'{model.step:,}'),
    ('Hash of the weights', model.weights),
  ]


def _remarks(whole: np.ndarray, image: np.ndarray) -> list[str]:
  """Returns what is not shown."""
  (h, w), (height, width) = whole.shape[:2], image.shape[:2]
  if (h, w) == (height, width):
    return []
  return [
    f'The image has {w} × {h} pixels; this is its middle, {width} × {height}.'
  ]
