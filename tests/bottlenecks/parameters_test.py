"""How many numbers each bottleneck learns by gradients, and keeps besides."""

import functools

import jax
import jax.numpy as jnp
import pytest

from tests.bottlenecks.rows import D, K, S, build


def dense(a, b):
  return a * b + b


def scalars(count):
  """Of the linear maps to scalars and back."""
  return dense(D, count) + dense(count, D)


def conv(a, b, side=3):
  return side**2 * a * b + b


def masked(width, blocks):
  """Of the two networks and the token of MQVAE."""
  norm = 2 * width
  score = conv(D, width) + norm + conv(width, 1, 1)
  residual = 2 * (norm + conv(width, width))
  attention = norm + dense(width, 3 * width) + dense(width, width)
  demask = dense(D, width) + conv(width, width) + norm + dense(width, D)
  return score + demask + blocks * (residual + attention) + residual + D


VQ = {'name': 'vq'}
LEVELS = 3 * 2**8  # of each level value, count and sum
COUNTS = {  # fields, parameters, and numbers in the collection `codebook`
  'lasers': ({'S': S}, D * K, D + 2 * K + LEVELS),
  'lasers-online': (
    {'S': S, 'learning': 'online'},
    0,
    D + 2 * K + LEVELS + D * K + K * K + D * K,
  ),
  'priced': ({}, 0, D + 12 * D),
  'priced-extras': ({'extras': 5}, 5 * D, D + 12 * (D + 5)),
  'vq': ({}, 0, 2 * K * D + K),
  'vq-loss': ({'learning': 'loss'}, K * D, K),
  'vq-affine': ({'learning': 'loss', 'affine': 2.0}, K * D + 2 * D, K),
  'simvq': ({}, dense(D, D), K * D),
  'ibq': ({}, K * D, 0),
  'cvq': ({}, K * D, K),
  'hypervq': ({}, K * D + K, K),
  'fsq': ({'levels': (4, 5)}, scalars(2), 0),
  'lfq': ({'bits': 4}, scalars(4), 0),
  'bsq': ({'bits': 20}, scalars(20), 0),
  'lattice': ({}, D, 0),
  'entropy': ({}, 0, 2 * D),
  'residual': ({'depth': 3, 'inner': VQ}, 0, 3 * (2 * K * D + K)),
  'product': (
    {'groups': 2, 'inner': {**VQ, 'learning': 'loss', 'D': D // 2}},
    K * D,
    2 * K,
  ),
  'mqvae': (
    {'inner': VQ, 'width': 8, 'blocks': 2},
    masked(8, 2),
    2 * K * D + K,
  ),
  'scq': ({}, K * D, 0),
  'lista': ({}, D * K + 1, 0),
  'lista-kept': ({'keep': 3}, D * K + 1, K + LEVELS),
  'kl': ({}, 2 * dense(D, D), 0),
  'kl-rounded': ({'value_bits': 3}, 2 * dense(D, D), 2 * D + 3 * 2**3),
  'none': ({}, 0, 0),
  'none-rounded': ({'value_bits': 3}, 0, 2 * D + 3 * 2**3),
  'wae': ({}, 0, 0),
  'info_vae': ({}, 2 * dense(D, D), 0),
  'rae': ({}, 0, 0),
}


@pytest.mark.parametrize('row', COUNTS)
def test_counts_are_exact(row):
  fields, *expected = COUNTS[row]
  module = build(row.split('-')[0], **fields)
  z = jnp.zeros((1, 2, 2, D))
  init = functools.partial(module.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), z)

  def count(collection):
    return sum(x.size for x in jax.tree.leaves(shapes.get(collection, {})))

  assert [count('params'), count('codebook')] == expected
