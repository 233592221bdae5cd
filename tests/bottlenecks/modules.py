"""What the tests of single bottlenecks share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def normal(shape, seed=0):
  generator = np.random.default_rng(seed)
  return jnp.asarray(generator.standard_normal(shape), jnp.float32)


@functools.partial(
  jax.jit, static_argnums=0, static_argnames=('train', 'method')
)
def run(module, variables, *args, **options):
  return module.apply(variables, *args, **options)


def drawn(module):
  """The variables of a module before it saw data."""
  z = jnp.zeros((1, 1, 1, module.D))
  init = functools.partial(module.init, train=False)
  return jax.jit(init)(jax.random.key(0), z)


def assert_near(one, two, tolerance=1e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance),
    one,
    two,
  )
