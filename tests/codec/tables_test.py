import numpy as np

from lasers_jax.codec.tables import ladder, steps, weigh, with_even_fraction

SKEWED = weigh(np.random.default_rng(0).geometric(0.3, (1, 12)) ** 4)


def test_the_last_step_of_a_set_is_by_the_weights_themselves():
  weights = tuple(SKEWED[0].tolist())
  np.testing.assert_array_equal(steps(weights, 4)[-1], weights)


def test_weights_follow_the_counts():
  counts = np.array([[10**6, 10**6, 0, 2 * 10**6]])
  fractions = weigh(counts) / weigh(counts).sum()
  np.testing.assert_allclose(fractions[0], [0.25, 0.25, 0, 0.5], atol=1e-3)
  assert (weigh(counts) > 0).all()


def test_rows_that_saw_nothing_are_as_the_mean():
  counts = np.array([[900, 100], [0, 0]])
  table = weigh(counts)
  fractions = table / table.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(fractions[1], fractions[0], atol=1e-2)


def test_no_symbol_is_free():
  table = weigh(np.array([[10**12, 0]]))
  assert table[0, 0] / table.sum() < 1 - 2**-12


def test_the_ladder_of_many_rows_is_that_of_each():
  weights = np.random.default_rng(0).integers(1, 2**22, (5, 12))
  for count in (1, 2, 5, 12):
    for found, row in zip(
      np.stack(ladder(weights, count), axis=1), weights, strict=True
    ):
      exact = np.array(steps(tuple(row.tolist()), count), float)
      for one, other in zip(found, exact, strict=True):
        # The exact ones are at least one.
        np.testing.assert_allclose(
          one / one.sum(), other / other.sum(), atol=1e-9
        )


def test_an_even_fraction_leaves_none_free_and_none_impossible():
  weights = with_even_fraction(np.array([[2**22, 0, 0, 0], [5, 5, 5, 5]]))
  fractions = weights / weights.sum(axis=1, keepdims=True)
  assert 2**-13 < fractions[0, 1:].min() <= fractions[0, 1:].max() < 2**-11
  np.testing.assert_array_equal(fractions[1], [0.25] * 4)
