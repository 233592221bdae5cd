"""The ladder of sides that pictures are padded to."""

import numpy as np
import pytest

from lasers_jax.core.padding import (
  common_sides,
  pad,
  pad_one,
  padded_side,
  round_up,
  sizes_of,
)


@pytest.mark.parametrize('pad_multiple', [1, 4, 6, 16, 28, 96])
def test_a_step_holds_the_side_and_divides(pad_multiple):
  for side in range(1, 1500):
    padded = padded_side(side, pad_multiple)
    assert padded >= side
    assert padded % pad_multiple == 0
    assert padded_side(padded, pad_multiple) == padded  # it is a step itself
    assert padded_side(side + 1, pad_multiple) >= padded
    # At most half more than is needed, a third from 256 up.
    nearest = round_up(side, pad_multiple)
    assert padded <= nearest * (4 / 3 if side > 255 else 3 / 2) + pad_multiple


def test_sides_are_rounded_up_to_a_multiple():
  assert [round_up(x, 4) for x in (1, 4, 5, 8)] == [4, 4, 8, 8]
  np.testing.assert_array_equal(round_up(np.array([6, 7, 12]), 6), [6, 12, 12])


def test_steps_are_few():
  assert len({padded_side(side, 4) for side in range(1, 4097)}) < 30
  near = {padded_side(side, 8) for side in range(200, 513)}
  assert near == {256, 320, 384, 448, 512}


def test_usual_sides_are_steps():
  usual = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
  assert all(padded_side(side, 8) == side for side in usual)
  assert padded_side(28, 28) == 28


def test_the_edge_is_repeated():
  image = np.random.default_rng(0).integers(0, 256, (9, 20, 3), np.uint8)
  padded = pad(image, 4)
  assert padded.shape == (12, 24, 3)
  rows, columns = np.minimum(range(12), 8), np.minimum(range(24), 19)
  np.testing.assert_array_equal(padded, image[rows][:, columns])


def test_sizes_are_none_where_pictures_fill():
  full, sizes = pad_one(np.zeros((16, 32, 3), np.uint8), 4)
  assert full.shape == (1, 16, 32, 3)
  assert sizes is None
  padded, sizes = pad_one(np.zeros((16, 30, 3), np.uint8), 4)
  assert padded.shape == (1, 16, 32, 3)
  assert sizes.tolist() == [[16, 30]]
  both = sizes_of(np.zeros((2, 16, 32, 3)), [16, 15], [32, 32])
  assert both.tolist() == [[16, 32], [15, 32]]
  assert both.dtype == np.int32


def test_pictures_share_sides_unless_they_are_small():
  shapes = [(100, 200), (120, 130), (40, 60), (128, 150)]
  images = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
  sides = common_sides(images, 4)
  most = [128, 256]
  np.testing.assert_array_equal(sides, [most, most, [48, 64], most])
  for image, goal in zip(images, sides, strict=True):
    batch, sizes = pad_one(image, 4, goal)
    assert batch.shape == (1, *goal, 3)
    assert sizes.tolist() == [list(image.shape[:2])]
