"""The bottlenecks that the contract is held for; a new one joins ROWS.

And what the tests of bottlenecks share: small ones, and how they are run.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax.bottlenecks import (
  BOTTLENECKS,
  VQ,
  Bottleneck,
  Lasers,
  Product,
  Residual,
)

D, K, S, DEPTH = 8, 16, 2, 3
B, SIDE = 8, 4
SPARSE = {'name': 'lasers', 'S': S}
ROWS = {
  'lasers': SPARSE,
  'lasers-online': {**SPARSE, 'learning': 'online'},
  'lasers-fixed': {**SPARSE, 'learning': 'fixed'},
  'lasers-float': {**SPARSE, 'coefficient_bits': None},
  'lasers-progressive': {**SPARSE, 'progressive': True},
  'lasers-rounded': {**SPARSE, 'pursuit': 'rounded', 'coefficient_bits': 2},
  'priced': {'name': 'priced', 'step': 1.0},
  'priced-extras': {'name': 'priced', 'price': 0.02, 'extras': 5},
  'priced-widest': {'name': 'priced', 'max_step_scale': 4.0},
  'vq-ema': {'name': 'vq', 'learning': 'ema'},
  'vq-loss': {'name': 'vq', 'learning': 'loss'},
  'vq-alternated': {'name': 'vq', 'learning': 'alternated', 'rate': 5.0},
  'vq-cosine': {'name': 'vq', 'distance': 'cosine', 'start': 'kmeans'},
  'vq-rotation': {'name': 'vq', 'gradient': 'rotation'},
  'vq-sinkhorn': {'name': 'vq', 'assignment': 'sinkhorn'},
  'vq-affine': {
    'name': 'vq',
    'learning': 'loss',
    'affine': 2.0,
    'synchronized': 0.5,
  },
  'simvq': {'name': 'simvq'},
  'ibq': {'name': 'ibq'},
  'cvq': {'name': 'cvq'},
  'hypervq': {'name': 'hypervq'},
  'fsq': {'name': 'fsq', 'levels': (4, 5)},
  'lfq': {'name': 'lfq', 'bits': 4},
  'bsq': {'name': 'bsq', 'bits': 20},
  'lattice': {'name': 'lattice', 'limit': 3, 'initial_points': K},
  'entropy': {'name': 'entropy'},
  'entropy-widest': {'name': 'entropy', 'max_step_scale': 4.0},
  'residual': {'name': 'residual', 'depth': 2, 'inner': {'name': 'vq'}},
  'product': {
    'name': 'product',
    'groups': 2,
    'inner': {'name': 'vq', 'learning': 'loss', 'D': D // 2},
  },
  'scq': {'name': 'scq'},
  'scq-kept': {'name': 'scq', 'keep': 3},
  'lista': {'name': 'lista', 'iterations': 4},
  'lista-kept': {'name': 'lista', 'iterations': 4, 'keep': 3},
  'mqvae': {'name': 'mqvae', 'width': 16, 'blocks': 1, 'inner': {'name': 'vq'}},
  'kl': {'name': 'kl'},
  'kl-rounded': {'name': 'kl', 'value_bits': 3},
  'none': {'name': 'none'},
  'none-rounded': {'name': 'none', 'value_bits': 3},
  'wae': {'name': 'wae'},
  'info_vae': {'name': 'info_vae'},
  'rae': {'name': 'rae'},
}
# What wrappers are made of: VQ in both ways of learning, and sparse codes.
INNER = {
  'ema': VQ(D=D, K=K),
  'loss': VQ(D=D, K=K, learning='loss'),
  'lasers': Lasers(D=D, K=K, S=2),
}
# Those that code a site by its whole image, and not by itself alone.
BY_IMAGE = ('mqvae',)
# Those whose atoms die and are revived: the suites of codebooks go by them.
CODEBOOKS = tuple(x for x in ROWS if x.split('-')[0] in ('lasers', 'vq'))
# Rows whose training codes or decodes in another way, by their definitions.
DRAWS = (
  'hypervq',
  'entropy-widest',
  'priced-widest',
  'kl',
  'kl-rounded',
  'info_vae',
)
KEEPS = ('scq-kept', 'lista-kept')  # in evaluation alone
TRAINS_OTHERWISE = ('vq-alternated', 'vq-sinkhorn', *KEEPS, *DRAWS)
# Those of which no other is almost the same program, for what compiles whole.
UNLIKE = {
  'compiled': (
    'lasers-float',
    'priced-extras',
    'vq-ema',
    'fsq',
  ),
  'devices': (
    'lasers-online',
    'lasers-rounded',
    'priced',
    'priced-extras',
    'vq-ema',
    'simvq',
    'ibq',
    'cvq',
    'hypervq',
    'fsq',
    'lfq',
    'bsq',
    'lattice',
    'entropy',
    'residual',
    'product',
    'scq',
    'scq-kept',
    'lista',
    'lista-kept',
    'mqvae',
    'kl-rounded',
    'none-rounded',
    'wae',
    'info_vae',
    'rae',
  ),
}


def build(name: str, **fields) -> Bottleneck:
  kind = BOTTLENECKS[name]
  if 'inner' in fields:
    fields['inner'] = build(**fields['inner'])
  known = {field.name for field in dataclasses.fields(kind)}
  given = {'D': D, 'K': K} if 'K' in known else {'D': D}
  return kind(**{**given, **fields})


def residual(inner=INNER['loss'], **fields) -> Residual:
  return Residual(**{'D': D, 'inner': inner, 'depth': DEPTH, **fields})


def product(inner=INNER['loss'], groups=2, **fields) -> Product:
  inner = inner.clone(D=D // groups)
  return Product(**{'D': D, 'inner': inner, 'groups': groups, **fields})


class Case(NamedTuple):
  """A bottleneck that started from z, and what it is called with."""

  module: Bottleneck
  drawn: dict  # the variables before it saw data
  variables: dict
  z: jax.Array

  def apply(self, *args, **options):
    rngs = {'bottleneck': jax.random.key(9)}
    return self.module.apply(self.variables, *args, rngs=rngs, **options)

  @property
  def home(self) -> str:
    return 'params' if 'params' in self.variables else 'codebook'


def normal(shape, seed=0, scale=3) -> jax.Array:
  generator = np.random.default_rng(seed)
  return jnp.asarray(scale * generator.standard_normal(shape), jnp.float32)


standard_normal = functools.partial(normal, scale=1)


def shape_of(module: Bottleneck, b=B, height=SIDE, width=SIDE):
  """Of latents that have so many signals."""
  return b, height, width, module.D


@functools.partial(jax.jit, static_argnums=0)
def begin(module: Bottleneck, z: jax.Array) -> tuple[dict, dict]:
  """Variables as they are drawn, and as they are once z has been seen.

  One program, which is kept for the other processes of tests.
  """
  drawn = module.init(jax.random.key(1), z, train=False)
  return drawn, {**drawn, **written(module, drawn, z, 'initialize')}


def started(module: Bottleneck, z: jax.Array) -> dict:
  return begin(module, z)[1]


def written(module, variables, z, method, seed=2) -> dict:
  """What a method such as `initialize` or `revive` writes."""
  _, changed = module.apply(
    variables,
    z,
    method=method,
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(seed)},
  )
  return changed


@functools.partial(
  jax.jit, static_argnums=0, static_argnames=('train', 'method')
)
def run(module, variables, *args, **options):
  return module.apply(variables, *args, **options)


def drawn(module: Bottleneck) -> dict:
  """The variables of a module before it saw data."""
  z = jnp.zeros((1, 1, 1, module.D))
  init = functools.partial(module.init, train=False)
  return jax.jit(init)(jax.random.key(0), z)


def start(module: Bottleneck) -> Case:
  z = normal(shape_of(module))
  return Case(module, *begin(module, z), z)


@functools.cache
def start_row(row: str) -> Case:
  return start(build(**ROWS[row]))


def train(case: Case, z: jax.Array) -> tuple[Any, Any]:
  """Returns the forward pass in training, and the codebook after it."""
  latent, updates = case.apply(z, train=True, mutable=['codebook'])
  return latent, updates.get('codebook', {})


def train_once(module, variables, z, mask=None, seed=3) -> tuple[Any, Any]:
  """Returns the forward pass in training, and the codebook after it."""
  latent, updates = module.apply(
    variables,
    z,
    train=True,
    mask=mask,
    mutable=['codebook'],
    rngs={'bottleneck': jax.random.key(seed)},
  )
  return latent, updates['codebook']


def revive(case: Case, z: jax.Array) -> Case:
  changed = written(case.module, case.variables, z, 'revive', seed=3)
  return case._replace(variables={**case.variables, **changed})


def assert_same(a, b):
  """Bit for bit, and of the same structure and dtypes."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def assert_close(a, b, tolerance=1e-5):
  """As far as the order of sums can change; integers bit for bit."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    exact = jnp.issubdtype(x.dtype, jnp.integer)
    np.testing.assert_allclose(x, y, tolerance, 0 if exact else tolerance)


# By NumPy: for JAX each of these would be a program for each shape.


def flat(tree):
  return jax.tree.map(np.ravel, jax.device_get(tree))


def rows_of(tree, which):
  return jax.tree.map(lambda x: x[which], jax.device_get(tree))


def some_of(x, which) -> jax.Array:
  return jnp.asarray(rows_of(x, which))


def signals_of(case) -> np.ndarray:
  return np.asarray(case.z).reshape(-1, case.module.D)


def norms(x):
  return np.linalg.norm(x, axis=-1)


def unit(x):
  return x / norms(x)[:, None]


def stored(case) -> np.ndarray:
  """The atoms or codes as they are kept: [K, ...]."""
  arrays = case.variables[case.home]
  return np.asarray(
    arrays['codes'] if 'codes' in arrays else arrays['dictionary'].T
  )


def names(count) -> list[str]:
  """Of the copies inside a wrapper, as variables have them."""
  return ['inner', *(f'copies_{i}' for i in range(1, count))]


def under(variables, name):
  """The variables of one copy."""
  return {home: arrays[name] for home, arrays in variables.items()}


def home(arrays) -> str:
  return 'params' if 'params' in arrays else 'codebook'
