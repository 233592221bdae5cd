"""Forms of a convolution by direction, shape and platform.

Forwards, and in its gradient of the input, XLA:CPU runs a convolution of stride
1 at the speed of a matrix product. Its gradient of the kernel is slower than a
product with the windows of the narrower side, and products run at their full
speed if the narrower factor is the one that is read across the rows.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

# Windows of more bytes than this are not made: those of large images would fill
# the memory.
_MAX_WINDOWS = 2**26
DIMENSIONS = 'NHWC', 'HWIO', 'NHWC'


def by_platform(
  default: Callable, cpu: Callable, gradients: Callable
) -> Callable:
  """Returns `default`, a function of (x, kernel), with other forms on a CPU.

  There it is `cpu`, and `gradients` of (x, kernel, gradient) returns those of x
  and of the kernel. The result is differentiable in reverse mode alone.
  """

  @jax.custom_vjp
  def run(x, kernel):
    if cpu is default:
      return default(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)

  def back(inputs, gradient):
    return lax.platform_dependent(
      *inputs, gradient, cpu=gradients, default=gradients_of(default)
    )

  run.defvjp(lambda *inputs: (run(*inputs), inputs), back)
  return run


def gradients_of(act: Callable) -> Callable:
  """Returns the function of (x, kernel, gradient) that differentiates `act`."""
  return lambda x, kernel, gradient: jax.vjp(act, x, kernel)[1](gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
  """Returns the cross-correlation of stride 1: [B, H, W, C] -> [B, H', W', O].

  `kernel` is [k, k, C, O], of the dtype of x; `padding` zeros stand around x.
  It is differentiable in reverse mode alone.
  """
  return _convolve(x, kernel, padding)


def _convolve(x, kernel, padding):
  return lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    [(padding, padding)] * 2,
    dimension_numbers=DIMENSIONS,
  )


def _forwards(x, kernel, padding):
  return _convolve(x, kernel, padding), (x, kernel)


def _backwards(padding, inputs, gradient):
  x, kernel = inputs
  k, _, c, o = kernel.shape
  plain = gradients_of(functools.partial(_convolve, padding=padding))
  # The narrower side has the smaller windows.
  form, side = (_by_windows_of_x, x) if c < o else (_by_windows, gradient)
  if not windows_fit(k * k * side.nbytes):
    return plain(*inputs, gradient)
  return lax.platform_dependent(
    *inputs,
    gradient,
    cpu=functools.partial(form, padding=padding),
    default=plain,
  )


convolve.defvjp(_forwards, _backwards)


def windows_fit(size: int) -> bool:
  """Returns whether windows of so many bytes may be made."""
  return size <= _MAX_WINDOWS


def _by_windows(x, kernel, gradient, padding):
  """Returns the gradients of x and of the kernel by windows of `gradient`."""
  k, _, c, o = kernel.shape
  windows = _windows(gradient, k, k - 1 - padding)
  # Seen from the input, the kernel is turned around.
  turned = kernel[::-1, ::-1].swapaxes(2, 3).reshape(k * k * o, c)
  of_kernel = product_over_sites(x, windows)
  of_kernel = of_kernel.reshape(c, k, k, o)[:, ::-1, ::-1]
  return windows @ turned, of_kernel.transpose(1, 2, 0, 3)


def _by_windows_of_x(x, kernel, gradient, padding):
  """Returns the gradients of x and of the kernel by windows of `x`."""
  _, back = jax.vjp(lambda x: _convolve(x, kernel, padding), x)
  windows = _windows(x, kernel.shape[0], padding)
  of_kernel = product_over_sites(windows, gradient).reshape(kernel.shape)
  return *back(gradient), of_kernel


def product_over_sites(a: jax.Array, b: jax.Array) -> jax.Array:
  """Sums outer products over the sites: [..., C], [..., O] -> [C, O].

  With the sites in one dimension XLA reads them where they lie. With several,
  it transposes `a` first, element by element.
  """
  if a.shape[-1] > b.shape[-1]:  # the first factor is read across the rows
    # Without the barrier XLA turns the product around again.
    return lax.optimization_barrier(product_over_sites(b, a)).T
  a, b = (sites.reshape(-1, sites.shape[-1]) for sites in (a, b))
  return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


def _windows(x, k, padding):
  """Joins the sites of each kxk window: [B, H, W, C] -> [B, H', W', k²C]."""
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
  corners = [x[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]
  return jnp.concatenate(corners, axis=-1)
