"""What a bottleneck decodes as, where that is a gather and a sum of rows.

A row is of a signal: p x p latents of width D, side by side, in units of the
latents. `indices` name one row of each table, and the signal is the sum of the
rows. `sparse` codes name S rows of a dictionary, and the signal is an offset
and the sum of the rows, each times its coefficient. `continuous` codes are the
signal but for a scale and an offset.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax import coding, inference
from lasers_jax.bottlenecks.base import Bottleneck, LookUp
from lasers_jax.bottlenecks.continuous import KL, Numbers
from lasers_jax.bottlenecks.fsq import Scalars
from lasers_jax.bottlenecks.lasers import Lasers
from lasers_jax.bottlenecks.patches import to_patches
from lasers_jax.bottlenecks.wrappers import Product, Residual
from lasers_jax.errors import InputError

MOST_ROWS = 2**18  # of a table


class Gathered(NamedTuple):
  """How codes become signals.

  Attributes:
    about: kind; patch, the p of a signal; width, p·p·D; sizes, the K of each
      table; of sparse codes S and levels, how many values a coefficient may
      take, 0 where it is stored as float32.
    arrays: table_0, table_1, ... [K, width]; or dictionary [K, width], offset
      [width] and levels; or offset and scale [width] and, of a variational
      bottleneck, the kernel [in, out] and the bias that give its mean.
  """

  about: dict[str, Any]
  arrays: dict[str, np.ndarray]


def gathered(model: Any, name: str) -> Gathered:
  """Returns how the bottleneck of a TrainedModel decodes.

  Args:
    name: of the format, for the error.

  Raises:
    InputError: it decodes in another way.
  """
  module, bottleneck = model.module, model.module.bottleneck
  width = module.patch**2 * module.encoder.D
  about = {'patch': module.patch, 'width': width}
  if isinstance(bottleneck, Numbers) and bottleneck.value_bits is None:
    shift, scale = _standard(model)
    arrays = {'offset': shift, 'scale': 1 / scale}
    arrays |= _mean(model) if isinstance(bottleneck, KL) else {}
    return Gathered({'kind': 'continuous', **about}, arrays)
  if type(bottleneck) is Lasers:
    return _sparse(model, about)
  sizes = _sizes(bottleneck)
  if not sizes:
    raise InputError(
      f'format={name!r} holds what decodes by look-up (codebooks, lasers, '
      f'residual and product of codebooks) or is continuous: not '
      f'{type(bottleneck).__name__}'
    )
  about = {'kind': 'indices', **about, 'sizes': sizes}
  return Gathered(about, _tables(model, sizes))


def _sizes(bottleneck: Bottleneck) -> list[int]:
  """Returns the K of each index of a site; none where it has other codes."""
  if isinstance(bottleneck, Residual | Product):
    return bottleneck.count * _sizes(bottleneck.inner)
  if isinstance(bottleneck, LookUp):
    return [bottleneck.K]
  if isinstance(bottleneck, Scalars):
    size = int(np.prod(bottleneck.levels, dtype=np.float64))
    return [size] if size <= MOST_ROWS else []
  return []


def _tables(model: Any, sizes: list[int]) -> dict[str, np.ndarray]:
  """Returns a table for each index; the first has the constant part, too."""
  module, variables = model.module, jax.device_get(model.variables)
  shape = jax.ShapeDtypeStruct((1,) + (module.pad_multiple,) * 2 + (3,), 'f4')
  codes = jax.eval_shape(
    lambda v, x: module.apply(v, x, method='encode'), variables, shape
  )
  structure = jax.tree.structure(codes)

  def rows(place: int, size: int) -> np.ndarray:
    leaves = [np.zeros((1, 1, size), np.int32) for _ in sizes]
    leaves[place] = np.arange(size, dtype=np.int32)[None, None]
    code = jax.tree.unflatten(structure, leaves)
    z = inference.look_up(module, variables, code)
    return np.asarray(to_patches(z, module.patch)[0, 0])

  tables = {f'table_{i}': rows(i, k) for i, k in enumerate(sizes)}
  constant = tables['table_0'][:1]  # all indices are 0 there
  for i in range(1, len(sizes)):
    tables[f'table_{i}'] = tables[f'table_{i}'] - constant
  return tables


def _sparse(model: Any, about: dict[str, Any]) -> Gathered:
  module, bottleneck = model.module, model.module.bottleneck
  bound = module.bind(jax.device_get(model.variables)).bottleneck
  home = 'params' if bottleneck.learning == 'gradient' else 'codebook'
  dictionary = model.variables[home]['bottleneck']['dictionary']
  rows = np.asarray(coding.normalize_atoms(jnp.asarray(dictionary)).T)
  arrays, shift, scale = {}, *_standard(model)
  if bottleneck.coefficient_bits is not None:
    rows = rows * np.asarray(bound.coefficients.usual())[:, None]
    arrays['levels'] = np.asarray(bound.coefficients.multiples())
  arrays['dictionary'] = rows / scale
  arrays['offset'] = np.asarray(bound.mean.value) / scale + shift
  about = {
    'kind': 'sparse',
    **about,
    'sizes': [bottleneck.K],
    'S': bottleneck.S,
    'levels': len(arrays.get('levels', ())),
  }
  return Gathered(about, arrays)


def _mean(model: Any) -> dict[str, np.ndarray]:
  """Returns the map from latents to the mean, in units of the latents."""
  dense = model.variables['params']['bottleneck']['mean']
  kernel, bias = (np.asarray(dense[x], np.float64) for x in ('kernel', 'bias'))
  shift, scale = _standard(model)
  kernel = scale[:, None] * kernel / scale
  bias = bias / scale + shift - shift @ kernel
  return {'kernel': kernel.astype('f4'), 'bias': bias.astype('f4')}


def _standard(model: Any) -> tuple[np.ndarray, np.ndarray]:
  """Returns the shift and the scale of the numbers of a signal: [width]."""
  module = model.module
  if not module.standardized:
    ones = np.ones(module.patch**2 * module.encoder.D, np.float32)
    return 0 * ones, ones
  found = model.variables['codebook']['packing']
  shift, scale = (
    np.tile(np.asarray(found[x]), module.patch**2) for x in ('shift', 'scale')
  )
  return shift, scale
