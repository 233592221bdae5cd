"""What the tests of wrappers share: small ones, and how they are run."""

import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax.bottlenecks import VQ, Lasers
from lasers_jax.bottlenecks.wrappers import Product, Residual

B, SIDE, D, K, DEPTH = 8, 4, 8, 16, 3
# What a wrapper is made of: VQ in both ways of learning, and sparse codes.
INNER = {
  'ema': VQ(D=D, K=K),
  'loss': VQ(D=D, K=K, learning='loss'),
  'lasers': Lasers(D=D, K=K, S=2),
}


def draw_z():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.standard_normal((B, SIDE, SIDE, D)), 'f4')


def residual(inner=INNER['loss'], **fields):
  return Residual(**{'D': D, 'inner': inner, 'depth': DEPTH, **fields})


def product(inner=INNER['loss'], groups=2, **fields):
  inner = inner.clone(D=D // groups)
  return Product(**{'D': D, 'inner': inner, 'groups': groups, **fields})


def start(module, z):
  drawn = module.init(jax.random.key(1), z, train=False)
  return {**drawn, **written(module, drawn, z, 'initialize')}


def written(module, variables, z, method):
  _, changed = module.apply(
    variables,
    z,
    method=method,
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(2)},
  )
  return changed


def train(module, variables, z, mask=None, seed=3):
  latent, updates = module.apply(
    variables,
    z,
    train=True,
    mask=mask,
    mutable=['codebook'],
    rngs={'bottleneck': jax.random.key(seed)},
  )
  return latent, updates['codebook']


def names(count):
  return ['inner', *(f'copies_{i}' for i in range(1, count))]


def under(variables, name):
  """The variables of one copy."""
  return {home: arrays[name] for home, arrays in variables.items()}


def assert_same(one, two):
  assert jax.tree.structure(one) == jax.tree.structure(two)
  jax.tree.map(np.testing.assert_array_equal, one, two)


def assert_near(one, two, tolerance=1e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance),
    one,
    two,
  )


def home(arrays):
  return 'params' if 'params' in arrays else 'codebook'
