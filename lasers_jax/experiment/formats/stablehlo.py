"""Models as StableHLO: programs that need JAX, and nothing of this project.

encode.stablehlo   images float32 [b, side, side, 3] in [0, 1] -> codes
decode.stablehlo   codes -> images float32 [b, side, side, 3], not clipped
config.json        names, shapes and types of what goes in and comes out

The batch b is free. `jax.export.deserialize` reads a program, of which the
weights are a part; codes are a tuple of arrays.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lasers_jax.core.arrays import flat_names
from lasers_jax.errors import InputError
from lasers_jax.experiment.formats import common

PLATFORMS = ('cpu', 'cuda', 'tpu')


def files(model: Any, side: int | None = None) -> dict[str, bytes]:
  """Returns the files of a model for images of side x side pixels.

  Args:
    model: a TrainedModel.
    side: a multiple of the model's `pad_multiple`; None takes data.side.

  Raises:
    InputError: the decoder draws, images are restored, or the side is none.
  """
  common.check_plain(model, 'stablehlo')
  module = model.module
  side = int(model.experiment.data.side if side is None else side)
  if side < 1 or side % module.pad_multiple:
    raise InputError(
      f'side is {side}: it must be a multiple of {module.pad_multiple}'
    )
  variables = jax.device_get(model.variables)  # from all devices to one
  apply = functools.partial(module.apply, jax.tree.map(jnp.asarray, variables))
  image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
  shapes = jax.eval_shape(lambda x: apply(x, method='encode'), image)
  structure = jax.tree.structure(shapes)

  def encode_one(image: jax.Array) -> tuple[jax.Array, ...]:
    codes = apply(image[None], method='encode')
    return tuple(x[0] for x in jax.tree.leaves(codes))

  def encode(images: jax.Array) -> tuple[jax.Array, ...]:
    # One by one: a bottleneck computes with the number of its sites.
    return jax.lax.map(encode_one, images)

  def decode(*codes: jax.Array) -> jax.Array:
    return apply(jax.tree.unflatten(structure, codes), method='decode')

  encoder = _program(encode, [image])
  decoder = _program(decode, jax.tree.leaves(shapes))
  names = [name or 'codes' for name in flat_names(shapes)]
  about = {
    **common.describe(model, 'stablehlo'),
    'side': side,
    'platforms': encoder.platforms,
    'encode': _described(encoder, ['images'], names),
    'decode': _described(decoder, names, ['images']),
  }
  return {
    'encode.stablehlo': bytes(encoder.serialize()),
    'decode.stablehlo': bytes(decoder.serialize()),
    'config.json': common.json_file(about),
  }


def _program(
  function: Callable[..., Any], shapes: Sequence[jax.ShapeDtypeStruct]
) -> export.Exported:
  """Exports a function of arrays, whose first dimension becomes free."""
  (b,) = export.symbolic_shape('b')
  free = [jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype) for x in shapes]
  return export.export(jax.jit(function), platforms=PLATFORMS)(*free)


def _described(
  program: export.Exported, inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, Any]:
  def rows(names: Sequence[str], arrays: Sequence[Any]) -> list[dict[str, Any]]:
    return [
      {
        'name': name,
        'shape': ['b', *x.shape[1:]],
        'dtype': np.dtype(x.dtype).name,
      }
      for name, x in zip(names, arrays, strict=True)
    ]

  return {
    'inputs': rows(inputs, program.in_avals),
    'outputs': rows(outputs, program.out_avals),
  }
