"""Counts the operations of a traced program, with every turn of its loops.

The cost analysis of XLA counts the body of a loop once: of a transformer whose
layers are a scan, one layer.
"""

import math
from typing import Any

import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(jaxpr: core.ClosedJaxpr, platform: str) -> int:
  """Returns the FLOPs of the products and convolutions of a program.

  An addition and a multiplication are two; all else, a few percent of a
  network, is left out, and so are products with the zeros around an image. A
  scan counts as often as it turns, a conditional by its longest branch, and a
  loop of which nobody knows when it ends once. What no result needs is not
  counted.

  Args:
    jaxpr: of all devices together, as in `jax.jit(f).trace(x).jaxpr`.
    platform: of the devices, as `jax.Device.platform`.
  """
  whole = jaxpr.jaxpr
  used, _ = partial_eval.dce_jaxpr(whole, [True] * len(whole.outvars))
  return _count(used, platform)


def _count(jaxpr: core.ClosedJaxpr | core.Jaxpr, platform: str) -> int:
  found, chosen = 0, {}
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == 'platform_index':
      names = equation.params['platforms']
      chosen[equation.outvars[0]] = next(
        i for i, some in enumerate(names) if some is None or platform in some
      )
    elif name == 'cond' and equation.invars[0] in chosen:
      branch = equation.params['branches'][chosen[equation.invars[0]]]
      found += _count(branch, platform)
    else:
      found += _of_equation(equation, platform)
  return found


def _of_equation(equation: Any, platform: str) -> int:
  name, given = equation.primitive.name, equation.params
  if name == 'dot_general':
    return _of_product(equation)
  if name == 'conv_general_dilated':
    return _of_convolution(equation)
  inner = [_count(x, platform) for x in core.jaxprs_in_params(given)]
  if name == 'cond':
    return max(inner)
  times = 1
  if name == 'scan':
    times = given['length']
  elif name == 'shard_map':  # written for one device
    axes = given['newly_manual_axes']
    times = math.prod(given['mesh'].shape[x] for x in axes)
  return times * sum(inner)


def _of_product(equation: Any) -> int:
  (contracted, _), _ = equation.params['dimension_numbers']
  shape = equation.invars[0].aval.shape
  terms = math.prod(shape[i] for i in contracted)
  return 2 * terms * math.prod(equation.outvars[0].aval.shape)


def _of_convolution(equation: Any) -> int:
  given = equation.params
  numbers = given['dimension_numbers']
  image, kernel = (x.aval.shape for x in equation.invars)
  out = equation.outvars[0].aval.shape
  batch, features, *places = numbers.out_spec
  taps = math.prod(
    _taps(image[i], kernel[j], out[k], *how)
    for i, j, k, *how in zip(
      numbers.lhs_spec[2:],
      numbers.rhs_spec[2:],
      places,
      given['window_strides'],
      given['padding'],
      given['lhs_dilation'],
      given['rhs_dilation'],
      strict=True,
    )
  )
  channels = kernel[numbers.rhs_spec[1]]  # of a group
  return 2 * taps * channels * out[batch] * out[features]


def _taps(
  image: int,
  kernel: int,
  out: int,
  stride: int,
  padding: tuple[int, int],
  image_dilation: int,
  kernel_dilation: int,
) -> int:
  """Returns how often a kernel meets a pixel, along one axis."""
  starts = stride * np.arange(out)[:, None] - padding[0]
  places = starts + kernel_dilation * np.arange(kernel)
  pixels, between = np.divmod(places, image_dilation)
  return int(np.sum((pixels >= 0) & (pixels < image) & (between == 0)))
