"""The count of operations, against arithmetic and against XLA's own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from lasers_jax.core import sharding
from lasers_jax.core.flops import count_flops
from lasers_jax.experiment import dry_run
from lasers_jax.priors.maps.transformer import Transformer, swiglu_width
from tests import tiny


def count(f, *shapes, platform='cpu'):
  given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return count_flops(jax.jit(f).trace(*given).jaxpr, platform)


SQUARE = (8, 8)
ONE = 2 * 8**3  # of a product of two such matrices


def powers(x, n):
  return lax.scan(lambda c, _: (c @ x, None), x, length=n)[0]


def nested(x):
  return lax.scan(lambda c, _: (powers(c, 3), None), x, length=5)[0]


def chosen(x):
  return lax.cond(x[0, 0] > 0, lambda x: powers(x, 7), lambda x: x @ x, x)


def by_platform(x):
  return lax.platform_dependent(
    x, cpu=lambda x: x @ x, default=lambda x: powers(x, 4)
  )


def endless(x):
  return lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ c, x)


def unused(x):
  y = powers(x, 9)
  return (x @ x, y)[0]


def own_gradient(x):
  @jax.custom_vjp
  def f(x):
    return x @ x

  f.defvjp(lambda x: (f(x), x), lambda x, g: (g @ x @ x,))
  return jax.grad(lambda x: jnp.sum(f(x)))(x)


def recomputed(x):
  layer = jax.checkpoint(lambda c, w: jnp.sin(c @ w))

  def loss(x):
    return jnp.sum(lax.scan(lambda c, _: (layer(c, x), None), x, length=6)[0])

  return jax.grad(loss)(x)


def on_each_device(x):
  mesh = sharding.make_mesh(data=4, fsdp=2)
  return jax.shard_map(
    lambda x: x @ x.T, mesh=mesh, in_specs=P('data'), out_specs=P('data')
  )(x)


@pytest.mark.parametrize(
  ('f', 'expected'),
  [
    (lambda x: jnp.sin(x + x), 0),
    (lambda x: jax.jit(jnp.matmul)(x, x), ONE),
    (lambda x: jax.vmap(jnp.dot, (0, None))(x, x), ONE),
    (lambda x: powers(x, 5), 5 * ONE),
    (lambda x: lax.fori_loop(2, 6, lambda i, c: c @ c, x), 4 * ONE),
    (nested, 15 * ONE),
    (chosen, 7 * ONE),
    (by_platform, ONE),
    (endless, ONE),
    (unused, ONE),
    # The forward product is needed by no gradient.
    (own_gradient, 2 * ONE),
    # Forwards, forwards again, and two products backwards.
    (recomputed, 6 * 4 * ONE),
    (on_each_device, 8 * 2 * 8 * 2 * 2),  # on 8 devices [2, 8] by [8, 2]
  ],
)
def test_products_count_as_often_as_they_run(f, expected):
  assert count(f, SQUARE) == expected


def test_a_branch_of_another_platform_is_not_counted():
  assert count(by_platform, SQUARE, platform='tpu') == 4 * ONE


@pytest.mark.parametrize(
  'how',
  [
    {'window_strides': (1, 1), 'padding': 'SAME'},
    {'window_strides': (2, 3), 'padding': ((1, 0), (2, 2))},
    {
      'window_strides': (1, 1),
      'padding': ((0, 1), (2, 3)),
      'lhs_dilation': (2, 3),
    },
    {'window_strides': (1, 2), 'padding': 'SAME', 'rhs_dilation': (3, 2)},
    {'window_strides': (1, 1), 'padding': 'SAME', 'feature_group_count': 2},
    {'window_strides': (1, 1), 'padding': 'SAME', 'batch_group_count': 2},
  ],
)
def test_convolutions_count_as_xla_counts_them(how):
  channels = 6 // how.get('feature_group_count', 1)

  def f(x, kernel):
    return lax.conv_general_dilated(
      x, kernel, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **how
    )

  shapes = (4, 9, 7, 6), (3, 4, channels, 8)
  given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  cost = jax.jit(f).lower(*given).cost_analysis()
  assert count(f, *shapes) == cost['flops']


def test_a_step_without_loops_counts_as_xla_counts_it():
  # A wide network, so that products are most of it; a quantizer has no loop.
  config = tiny.config(
    '/no/such/folder',
    network__channels=64,
    bottleneck={'name': 'none'},
    loss__weights={'pixel': 1.0},
  )
  task = dry_run.of_model(config)
  mesh = sharding.make_mesh(1, devices=jax.devices()[:1])
  traced = dry_run.trace(task, mesh)
  cost = traced.lower().cost_analysis()['flops']
  found = count_flops(traced.jaxpr, 'cpu')
  assert found == pytest.approx(cost, rel=0.03)


@pytest.mark.parametrize('remat', [False, True])
def test_a_step_of_a_transformer_is_six_times_its_weights(remat):
  """6 N T + 12 L T² w, and with remat nearly a third of it again.

  The last product of a layer is not computed again: no gradient needs it.
  """
  b, t, w, layers = 2, 32, 64, 3
  module = Transformer(w, layers, heads=4, remat=remat)
  positions = np.zeros((1, t, 2), np.int32)
  x = jax.ShapeDtypeStruct((b, t, w), jnp.float32)
  params = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, positions), x
  )

  def loss(params, x):
    return jnp.sum(module.apply(params, x, positions) ** 2)

  step = jax.jit(jax.grad(loss, argnums=(0, 1)))
  found = count_flops(step.trace(params, x).jaxpr, 'cpu')
  weights = sum(
    p.size for p in jax.tree.leaves(params['params']['block']) if p.ndim == 3
  )
  forward = b * (2 * weights * t + 4 * layers * t * t * w)
  last = 2 * b * t * layers * swiglu_width(w) * w
  expected = 4 * forward - last if remat else 3 * forward
  assert found == pytest.approx(expected, rel=0.01)
