"""Models as a module of PyTorch, in one file that needs nothing of here.

model.py             the networks and the decoding of codes
weights.safetensors  their arrays, by the names of the module
config.json          the fields of the networks, and of the codes
"""

import importlib.resources
from importlib.resources.abc import Traversable
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from lasers_jax.core.arrays import flat_names
from lasers_jax.errors import InputError
from lasers_jax.experiment.formats import common
from lasers_jax.experiment.formats.gathered import Gathered, gathered
from lasers_jax.networks.resnet import ResNetEncoder
from lasers_jax.networks.vqvae import VQVAEEncoder

# The fields of a network that are not those of its kind.
_OF_FLAX = ('parent', 'name', 'dtype')
NETWORKS = {'resnet': ResNetEncoder, 'vqvae': VQVAEEncoder}


def files(model: Any, name: str = 'torch') -> dict[str, bytes]:
  """Returns the files of a TrainedModel.

  Args:
    name: of the format that is made of them.

  Raises:
    InputError: the module has no such network or bottleneck.
  """
  common.check_plain(model, name)
  encoder = model.module.encoder
  kinds = [key for key, kind in NETWORKS.items() if type(encoder) is kind]
  if not kinds:
    raise InputError(
      f'format={name!r} holds the networks {" and ".join(NETWORKS)}, not '
      f'{type(encoder).__name__}'
    )
  coded = gathered(model, name)
  fields = [x for x in encoder.__dataclass_fields__ if x not in _OF_FLAX]
  values = {field: getattr(encoder, field) for field in fields}
  about = {
    **common.describe(model, name),
    'network': {'name': kinds[0], **values},
    'codes': {**coded.about, 'mean': 'kernel' in coded.arrays},
  }
  return {
    'model.py': _module().read_bytes(),
    'weights.safetensors': save(_arrays(model, coded)),
    'config.json': common.json_file(about),
  }


def _module() -> Traversable:
  """Returns the file beside this one that is written as it is."""
  folder = importlib.resources.files('lasers_jax.experiment.formats')
  return folder / 'torch_model.py.txt'


def _arrays(model: Any, coded: Gathered) -> dict[str, np.ndarray]:
  """Returns the arrays by the names of the module."""
  params = jax.device_get(model.variables['params'])
  both = {x: params[x] for x in ('encoder', 'decoder')}
  found = dict(_renamed(k, v) for k, v in flat_names(both).items())
  arrays = dict(coded.arrays)
  if 'kernel' in arrays:
    found['codes.mean.weight'] = arrays.pop('kernel').T
    found['codes.mean.bias'] = arrays.pop('bias')
  found |= {f'codes.{name}': x for name, x in arrays.items()}
  return {k: np.array(x, np.float32, order='C') for k, x in found.items()}


def _renamed(path: str, array: np.ndarray) -> tuple[str, np.ndarray]:
  """Returns the name and the array in PyTorch of one of a network here."""
  *parts, last = path.split('/')
  if last == 'kernel':
    up = parts[-1].startswith('UpConv_')
    up |= parts[-1] == 'to_image' and array.shape[0] == 4
    # A transposed convolution has its inputs first.
    array = array.transpose((2, 3, 0, 1) if up else (3, 2, 0, 1))
  last = {'kernel': 'weight', 'scale': 'weight'}.get(last, last)
  return '.'.join([*parts, last]), array
