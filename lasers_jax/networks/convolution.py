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

  form = _form_on_a_cpu(*inputs, gradient)
  if form is None:
    return plain(*inputs, gradient)
  return lax.platform_dependent(
    *inputs,
    gradient,
    cpu=functools.partial(form, padding=padding),
    default=plain,
  )


convolve.defvjp(_forwards, _backwards)


def _form_on_a_cpu(x, kernel, gradient) -> Callable | None:
  """Returns the fastest form of the gradients; None stands for XLA's own."""
  k, _, c, o = kernel.shape
  # The narrower side has the smaller windows. As x is the factor that a product
  # reads across the rows, its windows pay only if they are less than half.
  form, side = (_by_windows_of_x, x) if o > 2 * c else (_by_windows, gradient)
  return form if k * k * side.nbytes <= _MAX_WINDOWS else None


def _by_windows(x, kernel, gradient, padding):
  """Returns the gradients of x and of the kernel by windows of `gradient`."""
  k, _, c, o = kernel.shape
  windows = _windows(gradient, k, k - 1 - padding)
  # Seen from the input, the kernel is turned around.
  turned = kernel[::-1, ::-1].swapaxes(2, 3).reshape(k * k * o, c)
  of_kernel = _product_over_sites(x, windows)
  of_kernel = of_kernel.reshape(c, k, k, o)[:, ::-1, ::-1]
  return windows @ turned, of_kernel.transpose(1, 2, 0, 3)


def _by_windows_of_x(x, kernel, gradient, padding):
  """Returns the gradients of x and of the kernel by windows of `x`."""
  _, back = jax.vjp(lambda x: _convolve(x, kernel, padding), x)
  windows = _windows(x, kernel.shape[0], padding)
  of_kernel = _product_over_sites(windows, gradient).reshape(kernel.shape)
  return *back(gradient), of_kernel


def _product_over_sites(a, b):
  """Sums outer products over the sites: [..., C], [..., O] -> [C, O].

  With the sites in one dimension XLA reads `a` where it lies. With several, it
  transposes `a` first, element by element.
  """
  a, b = (sites.reshape(-1, sites.shape[-1]) for sites in (a, b))
  return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


def _windows(x, k, padding):
  """Joins the sites of each kxk window: [B, H, W, C] -> [B, H', W', k²C]."""
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
  corners = [x[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]
  return jnp.concatenate(corners, axis=-1)
