"""With 64-bit numbers switched on, coding is the same in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import subjaxprs

from lasers_jax import coding
from lasers_jax.coding.hyperbolic import most_likely_class
from lasers_jax.coding.index_propagation import largest_product
from lasers_jax.coding.ista import ista
from lasers_jax.coding.priced import priced_pursuit
from lasers_jax.coding.scalar import lloyd_levels, mu_law_levels, nearest_level

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
X, C = RNG.standard_normal((20, 6)), RNG.standard_normal((10, 6))
ATOMS = (C / np.linalg.norm(C, axis=1, keepdims=True)).T
ONES = np.ones(10)


def pursuit(**options):
  return lambda: coding.batch_omp(X, ATOMS, 3, **options)


def learning(make):
  learner = make(2)
  return lambda: learner.update(learner.init(ATOMS), X).dictionary


CALLS = {
  'omp': pursuit(),
  'ols': pursuit(selection='ols'),
  'positive': pursuit(positive=True),
  'bfloat16': pursuit(precision='bfloat16'),
  'residual_norm': pursuit(residual_norm=0.5),
  'limit': pursuit(limit=np.arange(20) % 4),
  'gram': pursuit(gram=ATOMS.T @ ATOMS),
  'path': lambda: coding.batch_omp_path(X, ATOMS, 3),
  'rounded': lambda: coding.rounded_pursuit(
    X, ATOMS, ONES, np.array([-1.0, 1.0]), 3
  ),
  'online': learning(coding.online),
  'gradient': learning(coding.gradient),
  'ksvd': learning(coding.ksvd),
  'priced': lambda: priced_pursuit(
    2 * X, np.concatenate([np.eye(6), ATOMS], axis=1), np.full((1, 16), 0.3), 3
  ),
  'nearest': lambda: coding.nearest_code(X, C),
  'product': lambda: largest_product(X, C),
  'class': lambda: most_likely_class(X, C, ONES, 1.0),
  'kmeans': lambda: coding.kmeans(jax.random.key(0), X, 5),
  'start': lambda: coding.pick_signals(jax.random.key(0), X, 30),
  'sinkhorn': lambda: coding.sinkhorn(coding.squared_distances(X, C)),
  'ista': lambda: ista(jnp.asarray(X), jnp.asarray(ATOMS), 2.0, 0.1, 3),
  'levels': lambda: nearest_level(X, lloyd_levels(X, 4)),
  'mu_law': lambda: mu_law_levels(X, 4),
}


# Of these the numbers are compared: the last three begin in the type that
# comes in. The rest is in float32 from the start, and compiling it twice would
# take longer than to look whether it is.
COMPARED = 'omp', 'online', 'rounded', 'priced', 'levels'


@pytest.mark.parametrize('call', COMPARED)
def test_results_are_those_of_float32(call):
  expected = CALLS[call]()
  with jax.enable_x64(True):
    found = CALLS[call]()
  leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
  for a, b in leaves:
    assert a.dtype == b.dtype
    exact = np.issubdtype(a.dtype, np.integer)
    np.testing.assert_allclose(a, b, 0, 0 if exact else 2e-6)


@pytest.mark.parametrize('call', [x for x in CALLS if x not in COMPARED])
def test_nothing_is_computed_in_float64(call):
  expected = jax.make_jaxpr(CALLS[call])()
  with jax.enable_x64(True):
    found = jax.make_jaxpr(CALLS[call])()
  assert not list(wide(found.jaxpr))
  types = ([x.dtype for x in traced.out_avals] for traced in (expected, found))
  assert len(set(map(tuple, types))) == 1


def wide(jaxpr):
  """Yields the operations of a program that give arrays of float64."""
  for equation in jaxpr.eqns:
    # Scalars are Python's numbers, and take the type of others.
    if any(
      x.aval.dtype == np.float64 and x.aval.ndim for x in equation.outvars
    ):
      yield equation
  for inner in subjaxprs(jaxpr):
    yield from wide(inner)
