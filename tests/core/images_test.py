"""Images as arrays: crops, ranges, files."""

import numpy as np
import pytest

from lasers_jax.core.images import crop_center


@pytest.mark.parametrize(
  'sides, size, expected',
  [
    ((4, 6), (2, 2), (slice(1, 3), slice(2, 4))),
    ((5, 7), (2, 4), (slice(1, 3), slice(1, 5))),  # one pixel more behind
    ((4, 6), (9, 2), (slice(0, 4), slice(2, 4))),  # as high as it is
  ],
)
def test_the_middle_of_an_image(sides, size, expected):
  image = np.arange(np.prod(sides) * 3).reshape(*sides, 3)
  np.testing.assert_array_equal(crop_center(image, *size), image[expected])
