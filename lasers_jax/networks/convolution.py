"""Forms of a convolution by direction, shape and platform.

Forwards, XLA:CPU runs a convolution at the speed of a matrix product. Its
gradient of the kernel is slow: a product that reads its wide factor, the
windows of the input, across the rows. Here both gradients are products with the
windows of the output's gradient, read along the rows.
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


def with_gradient(act: Callable, cpu: Callable) -> Callable:
  """Returns `act`, a function of (x, kernel), whose gradients have two forms.

  On a CPU they are those of `cpu`, the same function in another form. The
  result is differentiable in reverse mode alone.
  """

  def gradients(form: Callable) -> Callable:
    return lambda x, kernel, gradient: jax.vjp(form, x, kernel)[1](gradient)

  @jax.custom_vjp
  def run(x, kernel):
    return act(x, kernel)

  def back(inputs, gradient):
    return lax.platform_dependent(
      *inputs, gradient, cpu=gradients(cpu), default=gradients(act)
    )

  run.defvjp(lambda *inputs: (act(*inputs), inputs), back)
  return run


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
  def plain(x, kernel, gradient):
    _, back = jax.vjp(functools.partial(_convolve, padding=padding), x, kernel)
    return back(gradient)

  by_windows = functools.partial(_by_windows, padding=padding)
  if not _windows_pay(inputs[1].shape, gradient):
    return plain(*inputs, gradient)
  return lax.platform_dependent(
    *inputs, gradient, cpu=by_windows, default=plain
  )


convolve.defvjp(_forwards, _backwards)


def _windows_pay(kernel: tuple[int, ...], gradient: jax.Array) -> bool:
  """Whether the products are faster on a CPU than XLA's own gradients."""
  # Windows of a gradient that is much wider than the input cost more than they
  # save: 1.6 against 0.6 ms for a kernel of 3x3, 16 to 128 channels.
  k, _, c, o = kernel
  return (k == 1 or o <= 2 * c) and k * k * gradient.nbytes <= _MAX_WINDOWS


def _by_windows(x, kernel, gradient, padding):
  """Returns the gradients of x and of the kernel."""
  k, _, c, o = kernel.shape
  around = k - 1 - padding
  sides = ((0, 0), (around, around), (around, around), (0, 0))
  windows = _windows(jnp.pad(gradient, sides), k)
  # Seen from the input, the kernel is turned around.
  turned = kernel[::-1, ::-1].swapaxes(2, 3).reshape(k * k * o, c)
  pixels = (0, 1, 2)
  of_kernel = lax.dot_general(x, windows, ((pixels, pixels), ((), ())))
  of_kernel = of_kernel.reshape(c, k, k, o)[:, ::-1, ::-1]
  return windows @ turned, of_kernel.transpose(1, 2, 0, 3)


def _windows(x, k):
  """Joins the sites of each kxk window: [B, H, W, C] -> [B, H', W', k²C]."""
  h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
  corners = [x[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]
  return jnp.concatenate(corners, axis=-1)
