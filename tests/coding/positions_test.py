import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.coding.positions import (
  best_positions,
  position_bits,
  put_sites,
  take_sites,
)

B, N, D = 3, 11, 4


def normal(*shape, seed=0):
  generator = np.random.default_rng(seed)
  return jnp.asarray(generator.standard_normal(shape), jnp.float32)


@pytest.mark.parametrize('m', [1, 4, N])
def test_the_best_are_chosen_and_ascend(m):
  scores = normal(B, N)
  found = best_positions(scores, m)
  expected = np.sort(np.argsort(-np.asarray(scores), axis=1)[:, :m], axis=1)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, expected)


def test_the_lowest_position_wins_a_tie():
  scores = jnp.array([[1.0, 2.0, 2.0, 1.0, 2.0, 1.0], [0.5] * 6])
  np.testing.assert_array_equal(best_positions(scores, 2), [[1, 2], [0, 1]])
  np.testing.assert_array_equal(
    best_positions(scores, 4), [[0, 1, 2, 4], [0, 1, 2, 3]]
  )


def test_excluded_sites_come_last():
  scores = jnp.array([[-jnp.inf, 0.1, -jnp.inf, 0.2, -jnp.inf]])
  np.testing.assert_array_equal(best_positions(scores, 2), [[1, 3]])
  np.testing.assert_array_equal(best_positions(scores, 3), [[0, 1, 3]])


def test_what_is_taken_is_put_back_in_place():
  sites, positions = normal(B, N, D), best_positions(normal(B, N, seed=1), 4)
  taken = take_sites(sites, positions)
  moved = put_sites(jnp.zeros_like(sites), positions, taken)
  for b in range(B):
    where = np.asarray(positions[b])
    np.testing.assert_array_equal(taken[b], sites[b, where])
    np.testing.assert_array_equal(moved[b, where], sites[b, where])
    np.testing.assert_array_equal(np.delete(moved[b], where, axis=0), 0)


def test_the_gradient_is_of_the_sites_that_are_kept():
  positions, c = best_positions(normal(B, N), 3), normal(B, 3, D, seed=2)
  to_sites = jax.grad(lambda x: jnp.sum(take_sites(x, positions) * c))(
    normal(B, N, D, seed=1)
  )
  expected = put_sites(jnp.zeros((B, N, D)), positions, c)
  np.testing.assert_array_equal(to_sites, expected)


@pytest.mark.parametrize(
  'n, m, bits', [(4, 4, 0), (4, 1, 2), (5, 1, 3), (16, 4, 11), (2, 1, 1)]
)
def test_bits_of_positions(n, m, bits):
  assert position_bits(n, m) == bits


def test_bits_of_positions_tell_all_sets_apart():
  for n in range(1, 40):
    for m in range(n + 1):
      bits, sets = position_bits(n, m), math.comb(n, m)
      assert 2**bits >= sets
      assert bits == 0 or 2 ** (bits - 1) < sets
  assert position_bits(1024, 256) == math.ceil(
    (math.lgamma(1025) - math.lgamma(257) - math.lgamma(769)) / math.log(2)
  )
