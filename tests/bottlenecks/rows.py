"""The bottlenecks that the contract is held for; a new one joins ROWS."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lasers_jax.bottlenecks import BOTTLENECKS, Bottleneck

D, K, S = 8, 16, 2
B, SIDE = 8, 4
SPARSE = {'name': 'lasers', 'S': S}
ROWS = {
  'lasers': SPARSE,
  'lasers-online': {**SPARSE, 'learning': 'online'},
  'lasers-fixed': {**SPARSE, 'learning': 'fixed'},
  'lasers-float': {**SPARSE, 'coefficient_bits': None},
  'lasers-patch': {**SPARSE, 'patch': 2, 'D': 2},  # signals of 8 again
  'lasers-refit': {**SPARSE, 'gradient': 'refit'},
  'lasers-progressive': {**SPARSE, 'progressive': True},
  'vq-ema': {'name': 'vq', 'learning': 'ema'},
  'vq-loss': {'name': 'vq', 'learning': 'loss'},
}
# Those of which no other is almost the same program, for what compiles whole.
UNLIKE = {
  'compiled': ('lasers-float', 'lasers-patch', 'vq-ema'),
  'devices': ('lasers-online', 'vq-ema'),
}


def build(name: str, **fields) -> Bottleneck:
  return BOTTLENECKS[name](**{'D': D, 'K': K, **fields})


class Case(NamedTuple):
  """A bottleneck that started from z, and what it is called with."""

  module: Bottleneck
  drawn: dict  # the variables before it saw data
  variables: dict
  z: jax.Array

  def apply(self, *args, **options):
    return self.module.apply(self.variables, *args, **options)

  @property
  def home(self) -> str:
    return 'params' if 'params' in self.variables else 'codebook'


def normal(shape, seed=0) -> jax.Array:
  generator = np.random.default_rng(seed)
  return jnp.asarray(3 * generator.standard_normal(shape), jnp.float32)


def shape_of(module: Bottleneck, b=B, height=SIDE, width=SIDE):
  """Of latents that have so many signals."""
  p = module.patch_side
  return b, height * p, width * p, module.D


def start(module: Bottleneck) -> Case:
  z = normal(shape_of(module))
  drawn = module.init(jax.random.key(1), z, train=False)
  _, fitted = module.apply(
    drawn,
    z,
    method='initialize',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(2)},
  )
  return Case(module, drawn, {**drawn, **fitted}, z)


@functools.cache
def start_row(row: str) -> Case:
  return start(build(**ROWS[row]))


def train(case: Case, z: jax.Array) -> tuple[Any, Any]:
  """Returns the forward pass in training, and the codebook after it."""
  latent, updates = case.apply(z, train=True, mutable=['codebook'])
  return latent, updates['codebook']


def revive(case: Case, z: jax.Array) -> Case:
  _, changed = case.apply(
    z,
    method='revive',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(3)},
  )
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


def flat(tree):
  return jax.tree.map(jnp.ravel, tree)


def rows_of(codes, which):
  return jax.tree.map(lambda x: x[which], codes)


def signals_of(case) -> np.ndarray:
  p, d = case.module.patch_side, case.module.D
  z = np.asarray(case.z).reshape(B, SIDE, p, SIDE, p, d)
  return z.transpose(0, 1, 3, 2, 4, 5).reshape(-1, p * p * d)


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
