"""The order of training, against Grain's."""

import collections

import numpy as np
import pytest

from lasers_jax.data.order import Order, shuffled


def _grains(length, seed):
  import grain

  elements = grain.MapDataset.range(length).seed(seed).shuffle().repeat()
  return elements.random_map(
    lambda i, rng: (i, *rng.random(3), rng.integers(9))
  )


@pytest.mark.parametrize('seed', [0, 7, 2**32 - 1])
@pytest.mark.parametrize(
  'length', [1, 2, 3, 10, 777, 2**16, 2**16 + 1, 2**16 + 2, 3 * 10**6]
)
def test_order_and_numbers_are_those_of_grain(length, seed):
  ours, theirs = Order(length, seed), _grains(length, seed)
  places = [0, 1, length // 2, length - 1, length, 3 * length + 1, 10**9]
  for element in {*range(20), *places}:
    index, *numbers, whole = theirs[element]
    rng = ours.generator(element)
    assert ours.index(element) == index
    np.testing.assert_array_equal(rng.random(3), numbers)
    assert rng.integers(9) == whole


@pytest.mark.parametrize('length', [1, 2, 10, 1000, 66_000])
def test_each_epoch_has_each_image_once(length):
  order = Order(length, 5)
  for epoch in (0, 3) if length < 9999 else (1,):
    start = epoch * length
    seen = collections.Counter(
      order.index(i) for i in range(start, start + length)
    )
    assert seen == collections.Counter(range(length))


def test_another_seed_is_another_permutation():
  first = [shuffled(i, 1000, 1) for i in range(1000)]
  second = [shuffled(i, 1000, 2) for i in range(1000)]
  assert np.mean(np.equal(first, second)) < 0.02
  assert abs(np.corrcoef(first, range(1000))[0, 1]) < 0.2
