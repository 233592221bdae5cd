import numpy as np
import pytest

from lasers_jax.coding.numbers import check_shapes


def test_shapes_that_fit_are_left_alone():
  x = np.zeros((3, 2))
  check_shapes(a=(x, 'N D'), b=(x.T, 'D N'), c=(None, 'K'), d=(1.0, ''))


@pytest.mark.parametrize(
  'arrays, message',
  [
    ({'x': ((3,), 'N D')}, 'x must be [N, D], got [3]'),
    (
      {'x': ((3, 2), 'N D'), 'y': ((3, 4), 'D K')},
      'y must be [D, K] with D = 2, got [3, 4]',
    ),
    (
      {'x': ((3, 2), 'N D'), 'y': ((3, 4), 'N D')},
      'y must be [N, D] with N = 3 and D = 2, got [3, 4]',
    ),
    ({'x': ((3, 2), 'K K')}, 'x must be [K, K], got [3, 2]'),
  ],
)
def test_what_does_not_fit_is_named(arrays, message):
  given = {name: (np.zeros(x), text) for name, (x, text) in arrays.items()}
  with pytest.raises(ValueError) as caught:
    check_shapes(**given)
  assert str(caught.value) == message
