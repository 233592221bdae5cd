"""Models as two graphs of ONNX, which PyTorch makes of its module of them.

encode.onnx  images float32 [b, 3, h, w] in [0, 1] to latents [b, D, H, W]
decode.onnx  codes, as the model encodes to, to images, not clipped
config.json  of the module; see `torch`

Their number and sides are free; sides of images must be multiples of those to
which the model pads. Of what makes graphs of programs of JAX, jax2onnx 0.17 has
neither `platform_index` nor `jax.image.resize` with antialiasing, and asks for
an Orbax older than that of this project.
"""

import importlib
import json
import types
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load

from lasers_jax.core.arrays import flat_names
from lasers_jax.errors import InputError
from lasers_jax.experiment.formats import torch as module_of_torch

_BATCH, _SITES = 2, (2, 3)  # of the example that is followed through the module


def files(model: Any) -> dict[str, bytes]:
  """Returns the files of a TrainedModel.

  Raises:
    InputError: the module has no such network or bottleneck, or what writes
      graphs is not installed.
  """
  found, torch = module_of_torch.files(model, 'onnx'), _torch()
  module, unit = _module(torch, found), model.module.pad_multiple
  images = np.zeros((_BATCH, *(unit * x for x in _SITES), 3), np.float32)
  codes = jax.eval_shape(
    lambda v, x: model.module.apply(v, x, method='encode'),
    jax.device_get(model.variables),
    images,
  )
  planes = {'images': images.transpose(0, 3, 1, 2)}
  maps = {
    name or 'codes': np.zeros(x.shape, x.dtype)
    for name, x in flat_names(codes).items()
  }
  sides = (_free(torch, 2, unit),)
  sites = ((_free(torch, 1),) * len(maps),)  # all codes are one argument
  return {
    'encode.onnx': _graph(torch, module.encode, planes, 'latents', sides),
    'decode.onnx': _graph(torch, module.decode, maps, 'images', sites),
    'config.json': found['config.json'],
  }


def _torch() -> Any:
  """Returns PyTorch, where its converter is installed, too."""
  try:
    importlib.import_module('onnxscript')
    return importlib.import_module('torch')
  except ImportError:
    raise InputError(
      "format='onnx' needs torch and onnxscript: pip install 'lasers_jax[onnx]'"
    ) from None


def _module(torch: Any, found: dict[str, bytes]) -> Any:
  """Returns the module of the files of the format `torch`."""
  names: dict[str, Any] = {'__name__': 'model'}
  exec(compile(found['model.py'], 'model.py', 'exec'), names)
  module = names['Autoencoder'](json.loads(found['config.json']))
  weights = load(found['weights.safetensors'])
  module.load_state_dict({k: torch.from_numpy(x) for k, x in weights.items()})
  return module.eval()


def _free(torch: Any, first: int, unit: int = 1) -> dict[int, Any]:
  """Returns the dimensions of an array that may change.

  Args:
    first: the axis of the height, before that of the width.
    unit: what both are multiples of.
  """
  b, h, w = (torch.export.Dim(x, min=1) for x in 'bhw')
  return {0: b, first: unit * h, first + 1: unit * w}


def _graph(
  torch: Any,
  method: types.MethodType,
  given: Mapping[str, np.ndarray],
  output: str,
  free: tuple[Any, ...],
) -> bytes:
  """Returns the graph of a method of a module.

  Args:
    given: examples of the arguments, by name.
    free: of each argument of the method, as of `_free`.
  """
  module: Any = method.__self__
  module.forward = method
  with warnings.catch_warnings():
    # Of PyTorch, about its own calls and names.
    warnings.simplefilter('ignore')
    graph = torch.onnx.export(
      module,
      tuple(torch.from_numpy(x) for x in given.values()),
      input_names=list(given),
      output_names=[output],
      dynamic_shapes=free,
      dynamo=True,
      verbose=False,
    )
  return graph.model_proto.SerializeToString()
