"""A whole model as a codec: images to bytes, and bytes to images."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lasers_jax import codec
from lasers_jax.codec.choosing import by_bits, descend
from lasers_jax.coding import scalar
from lasers_jax.core.images import to_float
from lasers_jax.core.padding import pad_one, sizes_of
from lasers_jax.decoders import SamplingSettings
from lasers_jax.errors import InputError
from lasers_jax.inference import decode_latents, encode_batch, look_up
from lasers_jax.networks.autoencoder import Autoencoder

# How levels of coefficients are found.
LEVELS = {
  'lloyd': scalar.lloyd_levels,
  'mu_law': scalar.mu_law_levels,
}


class ModelCodec:
  """Turns images into files, and files into images, by a trained model."""

  def __init__(
    self,
    model: Autoencoder,
    variables: Any,
    mesh: Mesh,
    decoding: SamplingSettings | None,
    state: codec.State,
  ):
    """Takes a model whose bottleneck is as the state says, but for levels.

    Raises:
      InputError: what the state holds does not fit the model.
    """
    bits = getattr(model.bottleneck, 'coefficient_bits', None)
    if state.levels is not None and len(state.levels) != 2 ** (bits or 0):
      raise InputError(
        f'there are {len(state.levels)} levels for coefficients of {bits} bits'
      )
    self.model, self.mesh, self.decoding = model, mesh, decoding
    self.state = state
    self.variables = with_levels(variables, state.levels)
    self.codec = codec.Codec(
      model.bottleneck,
      model.stride,
      model.pad_multiple,
      state.tables,
      state.hash(),
    )

  def codes_of(self, image: np.ndarray, search: int = 0) -> Any:
    """Codes an image uint8 [h, w, 3] of any size: NumPy arrays.

    Where a bit has a price, in a second pass by the bits of the file.

    Args:
      search: rounds of `descend` after that, for a model that allows them; see
        `experiment.codecs.check_search`.
    """
    batch, sizes = pad_one(image, self.codec.pad_multiple)
    sites = self.model.coded_sites(*image.shape[:2])
    fixed = self.model, self.variables
    tables = self.state.tables
    [codes] = _coded(*fixed, batch, sizes, {0: sites}, tables)
    if search:
      codes = descend(*fixed, tables, batch, sizes, codes, search)
    return codes

  def encode(self, image: np.ndarray, search: int = 0) -> bytes:
    """Returns the file of an image uint8 [h, w, 3], or of a degraded one.

    Args:
      image: of a restoration also what the encoder sees of a degraded image,
        float32 [h, w, channels]: the file is then of the restored one.
      search: as in `codes_of`.

    Raises:
      InputError: the decoder of the model needs more than a file.
    """
    if self.model.sees_input:
      raise InputError(
        'the decoder of this model sees the degraded image, which a file does '
        "not hold: train with degradation.protocol='code'"
      )
    codes = self.codes_of(image, search)
    return self.codec.write(codes, *image.shape[:2])

  def decode(self, data: bytes) -> np.ndarray:
    """Returns the image of a file: uint8 [h, w, 3].

    Raises:
      InputError: the file cannot be read.
    """
    codes, height, width = self.codec.read(data)
    batch = jax.tree.map(lambda x: x[None], codes)
    latents = jax.device_get(look_up(self.model, self.variables, batch))
    images = decode_latents(
      self.model,
      self.variables,
      latents,
      self.mesh,
      self.decoding,
      (height, width),
    )
    return images[0]


@functools.partial(jax.jit, static_argnums=0)
def _multiples(model, variables, images, sizes):
  def multiples(module, images):
    z = module.pack(module(images, sizes=sizes).z)
    found = module.bottleneck.multiples(z)
    grid = module.bottleneck.grid(*z.shape[1:3])
    return found.reshape(len(images), *grid, -1)

  return model.apply(variables, to_float(images), method=multiples)


def with_levels(variables: Any, levels: np.ndarray | None) -> Any:
  """Gives the coefficients of a bottleneck other levels."""
  if levels is None:
    return variables
  none = np.zeros_like(levels)
  statistics = dict(variables['codebook']['bottleneck'])
  statistics['coefficients'] = {
    **statistics['coefficients'],
    'levels': scalar.Levels(levels, none, none),
  }
  codebook = {**variables['codebook'], 'bottleneck': statistics}
  return {**variables, 'codebook': codebook}


def fit_levels(
  model: Autoencoder,
  variables: Any,
  batches: Sequence[dict],
  find: Callable[[Any, int], Any],
) -> np.ndarray | None:
  """Finds levels for the coefficients of a bottleneck that has learned some.

  Args:
    model: as it will code; `variables` may have another number of levels.
    batches: of the images for which the levels are found.
    find: of LEVELS.

  Returns:
    float32 [2^b]; None where the bottleneck has no levels.
  """
  bottleneck = model.bottleneck
  if not hasattr(bottleneck, 'multiples'):
    return None
  # Where rounding is inside the pursuit, levels change what is rounded.
  rounded = getattr(bottleneck, 'pursuit', None) == 'rounded'
  for _ in range(4 if rounded else 1):
    multiples = []
    for batch in batches:
      sizes = sizes_of(batch['image'], batch['height'], batch['width'])
      found = np.asarray(_multiples(model, variables, batch['image'], sizes))
      for i, sites in _real(model, batch):
        multiples.append(bottleneck.crop(found[i], *sites).ravel())
    together = np.concatenate(multiples)
    levels = np.asarray(find(together, 2**bottleneck.coefficient_bits))
    variables = with_levels(variables, levels)
  return levels


def fit_tables(
  model: Autoencoder,
  variables: Any,
  batches: Iterable[dict],
  context: bool = False,
) -> codec.Tables:
  """Counts the codes of images; see `codec.fit_tables`.

  Where codes depend on their bits, once more with the codes that follow.
  """
  batches, tables = list(batches), None
  for _ in range(2 if model.bottleneck.chooses else 1):
    maps = _maps(model, variables, batches, tables)
    tables = codec.fit_tables(model.bottleneck, maps, context)
  return tables


def _maps(
  model, variables, batches, tables
) -> Iterator[tuple[Any, tuple[int, int]]]:
  """The codes of single images, and H and W of their latents."""
  for batch in batches:
    sizes = sizes_of(batch['image'], batch['height'], batch['width'])
    real = dict(_real(model, batch))
    found = _coded(model, variables, batch['image'], sizes, real, tables)
    yield from zip(found, real.values(), strict=True)


def _coded(
  model: Autoencoder,
  variables: Any,
  images: np.ndarray,
  sizes: np.ndarray | None,
  real: Mapping[int, tuple[int, int]],
  tables: codec.Tables | None,
) -> Iterator[Any]:
  """Codes rows of padded images: yields NumPy arrays.

  Args:
    real: H and W of the latents, by rows.
    tables: those by which a bottleneck that `chooses` does; None for none.
  """
  if tables is None or not model.bottleneck.chooses:
    codes = jax.device_get(encode_batch(model, variables, images, sizes))
    for i, sites in real.items():
      one = jax.tree.map(lambda x, i=i: x[i], codes)
      yield model.bottleneck.crop(one, *sites)
    return
  yield from by_bits(model, variables, tables, images, sizes, real)


def _real(model, batch) -> Iterator[tuple[int, tuple[int, int]]]:
  """The rows of a batch that are images, and H and W of their latents."""
  for i in np.flatnonzero(batch['mask']):
    size = int(batch['height'][i]), int(batch['width'][i])
    yield i, model.coded_sites(*size)
