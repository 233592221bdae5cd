"""The order of sites: each once, after those that are near."""

import math

import numpy as np
import pytest

from lasers_jax.codec.scan import PASSES, scan

SIZES = [(1, 1), (1, 9), (7, 1), (2, 2), (8, 8), (13, 6)]


def places(sizes):
  """The map, row and column of each site."""
  return [
    (i, *spot) for i, size in enumerate(sizes) for spot in np.ndindex(size)
  ]


def follow(steps, count):
  """Checks that each site comes once, and those near before it."""
  known = np.zeros(count + 1, int)
  known[-1] = 1  # what stands for none
  for step in steps:
    if step.near is not None:
      assert step.near.shape == (4, len(step.sites))
      assert known[step.near].all()
    known[step.sites] += 1
  assert np.all(known == 1)


@pytest.mark.parametrize('size', SIZES)
def test_every_site_comes_once_after_those_near_it(size):
  order = scan((size,))
  follow(order.waves, math.prod(size))
  follow(order.passes, math.prod(size))
  follow(order.whole, math.prod(size))
  assert len(order.passes) <= PASSES
  assert len(order.waves) <= size[1] + 2 * (size[0] - 1)


def test_those_near_are_the_nearest_known():
  spots = places([(6, 7)])
  order = scan(((6, 7),))
  distances = {1: math.sqrt(2), 2: 1.0}
  for step in order.passes:
    assert (step.near is None) == (step.kind == 0)
    if step.near is None:
      continue
    for site, near in zip(step.sites, step.near.T, strict=True):
      inside = 0 < spots[site][1] < 5 and 0 < spots[site][2] < 6
      if inside:
        found = {math.dist(spots[site], spots[other]) for other in near}
        assert found == {distances[step.kind]}
        assert len(set(near)) == 4


def test_beyond_the_edge_another_stands_in():
  order = scan(((3, 3),))
  for step in order.waves:
    for site, near in zip(step.sites, step.near.T, strict=True):
      assert (set(near) == {9}) == (site == 0)
  np.testing.assert_array_equal(order.beside[:, 0], [0, 1, 0, 3])
  np.testing.assert_array_equal(order.beside[:, 4], [3, 5, 1, 7])


def test_maps_together_are_as_each_alone():
  sizes = (3, 4), (5, 2)
  both = scan(sizes)
  spots = places(sizes)
  for step in both.waves + both.passes[1:]:
    for site, near in zip(step.sites, step.near.T, strict=True):
      maps = {spots[other][0] for other in near if other < both.count}
      assert maps <= {spots[site][0]}
  alone = scan(sizes[1:])
  np.testing.assert_array_equal(both.beside[:, 12:], 12 + alone.beside)
  for kind, step in enumerate(alone.passes):
    among = both.passes[kind]
    later = among.sites >= 12
    np.testing.assert_array_equal(among.sites[later] - 12, step.sites)
    if kind:
      shifted = among.near[:, later] - 12
      np.testing.assert_array_equal(shifted, step.near)
