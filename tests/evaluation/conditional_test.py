"""Scores of draws for a class, and bits of a prior."""

import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.evaluation.conditional import bits_per_pixel, class_accuracy


def test_the_class_found_is_compared_with_the_class_asked_for():
  found = class_accuracy(
    np.array([0, 1, 1, 2, 0]), np.array([0, 1, 2, 2, 2]), 4
  )
  assert found == {
    'accuracy': 3 / 5,
    'asked': [1, 1, 3, 0],
    'found': [2, 2, 1, 0],
    'right': [1, 1, 1, 0],
  }


def test_counts_add_up_in_any_order():
  rng = np.random.default_rng(0)
  found, asked = rng.integers(0, 7, (2, 500))
  scores = class_accuracy(found, asked, 7)
  assert sum(scores['asked']) == sum(scores['found']) == 500
  assert sum(scores['right']) / 500 == pytest.approx(scores['accuracy'])
  order = rng.permutation(500)
  assert class_accuracy(found[order], asked[order], 7) == scores
  assert class_accuracy(asked, asked, 7)['accuracy'] == 1


@pytest.mark.parametrize('asked', [-1, 3])
def test_an_image_without_a_class_is_said(asked):
  with pytest.raises(InputError, match=f'from 0 to 2, got {asked}: label each'):
    class_accuracy(np.array([0, 1]), np.array([0, asked]), 3)


def test_sets_that_do_not_go_together_are_no_result():
  for found, asked in ([0, 1], [0]), ([], []):
    with pytest.raises(ValueError, match='asked for'):
      class_accuracy(np.array(found, int), np.array(asked, int), 3)


def test_bits_are_of_all_events_of_an_image():
  bits = np.random.default_rng(0).uniform(0, 9, (20, 4, 5, 3))
  found = bits_per_pixel(bits, 16 * 20, 10, exact=True)
  assert found['given_class']['mean'] == pytest.approx(
    sum(bits.ravel()) / 20 / 320
  )
  assert found['given_class']['count'] == 20
  assert found['given_class']['low'] < found['given_class']['mean']
  assert 320 * found['with_class'] == pytest.approx(
    320 * found['given_class']['mean'] + 3.321928
  )
  assert np.sum(found['by_plane']) * 20 / 320 == pytest.approx(
    found['given_class']['mean']
  )
  assert found['exact']


@pytest.mark.parametrize('classes', [0, 1])
def test_a_class_that_is_known_costs_nothing(classes):
  found = bits_per_pixel(np.ones((2, 1, 1, 1)), 4, classes, exact=False)
  assert found['with_class'] == found['given_class']['mean'] == 0.25
  assert not found['exact']
