"""Pictures of priors: what is where."""

import numpy as np
import pytest

from lasers_jax.report import charts, grids, prior_figures

SIDE = 96  # so that nothing is enlarged


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)


def cell(figure, row, column):
  """A cell of a grid whose labels may have any width: from the right."""
  columns = 3
  step, pad = SIDE + prior_figures.PAD, prior_figures.PAD
  top = pad + row * step
  left = figure.shape[1] - (columns - column) * step
  return figure[top : top + SIDE, left : left + SIDE]


def test_classes_and_strengths_are_rows(images):
  for figure in (
    prior_figures.by_class([images[:3], images[3:]], ['cat', 'dog']),
    prior_figures.by_guidance([images[:3], images[3:]], [1, 1.5]),
  ):
    for i, image in enumerate(images):
      np.testing.assert_array_equal(cell(figure, *divmod(i, 3)), image)
    assert figure[:, : -3 * (SIDE + prior_figures.PAD)].std() > 0  # labels


def test_draws_stand_above_their_nearest(images):
  figure = prior_figures.beside_nearest(images[:3], images[3:])
  for i in range(3):
    np.testing.assert_array_equal(cell(figure, 0, i), images[i])
    np.testing.assert_array_equal(cell(figure, 1, i), images[3 + i])
    off = np.abs(images[i].astype(int) - images[3 + i])
    np.testing.assert_array_equal(cell(figure, 2, i), off)


def test_bits_have_the_colours_of_the_bar(images):
  bits = np.random.default_rng(1).uniform(0, 9, (3, 4, 6))
  bits[0, 1, 2] = 8.0
  figure = prior_figures.bits_of_sites(images[:3], bits, top=8.0)
  np.testing.assert_array_equal(cell(figure, 0, 1), images[1])
  own = cell(figure, 1, 0)
  blocks = own.reshape(4, 24, 6, 16, 3)
  assert (blocks == blocks[:, :1, :, :1]).all()
  np.testing.assert_array_equal(blocks[:, 0, :, 0], charts.heat(bits[0], 8.0))
  bar = figure[-10:]
  brightest = blocks[1, 0, 2, 0]
  assert (bar == brightest).all(axis=-1).any()
  assert (bar == charts.heat(np.zeros(1), 1.0)[0]).all(axis=-1).any()
  both = cell(figure, 2, 0).astype(float)
  grey = images[0].mean(axis=-1, keepdims=True)
  np.testing.assert_allclose(2 * both, own + grey, atol=1.01)


def test_what_is_not_known_is_grey(images):
  known = np.random.default_rng(2).random((3, 4, 4)) < 0.5
  shown = prior_figures.unmasking(images[:3], known, [0, 4, 8])
  given = prior_figures.completions(images[:3], known, images[None, 3:])
  for i in range(3):
    pixels = known[i].repeat(24, axis=0).repeat(24, axis=1)
    for figure in shown, given:
      own = cell(figure, 0, i)
      np.testing.assert_array_equal(own[pixels], images[i][pixels])
      assert (own[~pixels] == prior_figures.UNKNOWN).all()
    np.testing.assert_array_equal(cell(given, 1, i), images[3 + i])
    np.testing.assert_array_equal(cell(given, 2, i), images[i])


def test_small_images_are_enlarged_alike():
  small = np.random.default_rng(3).integers(0, 256, (3, 32, 32, 3), np.uint8)
  figure = prior_figures.bits_of_sites(small, np.ones((3, 8, 8)))
  enlarged = small[1].repeat(3, axis=0).repeat(3, axis=1)
  np.testing.assert_array_equal(cell(figure, 0, 1), enlarged)
  assert figure.dtype == np.uint8
  assert (figure[-1] == grids.BACKGROUND).any()
