"""With 64-bit numbers switched on all stays float32, and codes are the same."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bottlenecks.rows import ROWS, build, normal, shape_of, start_row

pytestmark = pytest.mark.slow

# Arrays of float64; scalars are Python's numbers, and take the type of others.
WIDE = re.compile(r'f64\[\d[\d,]*\]')


def wide(function, *args):
  """Traces a function, and says which of its numbers are float64."""
  with jax.enable_x64(True):
    traced = jax.make_jaxpr(function)(*args)
  outputs = [str(x) for x in traced.out_avals if x.dtype == np.float64]
  return sorted({*WIDE.findall(str(traced)), *outputs})


@pytest.mark.parametrize('row', ROWS)
def test_no_array_is_float64(row):
  case = start_row(row)
  module, variables, z = case.module, case.variables, case.z
  keys = jax.random.key(9), jax.random.key(1)

  def draw(z):
    return module.init(keys[1], z, train=False)

  def learn(variables, z):
    def loss(params, z):
      latent, updates = module.apply(
        {**variables, 'params': params},
        z,
        train=True,
        mutable=['codebook'],
        rngs={'bottleneck': keys[0]},
      )
      total = jnp.sum(latent.quantized) + sum(latent.losses.values())
      return total, updates

    params = variables.get('params', {})
    return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, z)

  def change(method):
    def call(variables, z):
      return module.apply(
        variables,
        z,
        method=method,
        mutable=['params', 'codebook'],
        rngs={'bottleneck': keys[0]},
      )

    return call

  def code(variables, z):
    codes = module.apply(variables, z, method='encode')
    return codes, module.apply(variables, codes, method='decode')

  assert not wide(draw, z)
  for call in (learn, code, change('initialize'), change('revive')):
    assert not wide(call, variables, z), call


@pytest.mark.parametrize('row', ROWS)
def test_codes_are_the_same(row):
  case = start_row(row)
  codes = case.apply(case.z, method='encode')
  with jax.enable_x64(True):
    found = case.apply(case.z, method='encode')
    quantized = case.apply(found, method='decode')
  jax.tree.map(np.testing.assert_array_equal, found, codes)
  assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(
    lambda x: x.dtype, codes
  )
  assert quantized.dtype == np.float32


def test_latents_of_float64_are_coded_in_float32():
  module = build(**ROWS['vq-ema'])
  case = start_row('vq-ema')
  z = normal(shape_of(module))
  with jax.enable_x64(True):
    wide = jnp.asarray(np.asarray(z, np.float64))
    assert wide.dtype == np.float64
    found = case.apply(wide, method='encode')
  np.testing.assert_array_equal(found, case.apply(z, method='encode'))
