import os

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lasers_jax.core.images import save_png
from lasers_jax.report import grids

GROUND = np.full(3, grids.BACKGROUND, np.uint8)


def _random(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, shape, dtype=np.uint8)


def _flat(height, width, value):
  return np.full((height, width, 3), value, np.uint8)


def test_grid_puts_each_cell_in_its_place():
  rows = _random(2, 3, 5, 7, 3)
  picture = grids.grid(rows, pad=4, scale=1)
  assert picture.dtype == np.uint8
  assert picture.shape == (4 + 2 * (5 + 4), 4 + 3 * (7 + 4), 3)
  for i in range(2):
    for j in range(3):
      top, left = 4 + i * 9, 4 + j * 11
      cell = picture[top : top + 5, left : left + 7]
      np.testing.assert_array_equal(cell, rows[i, j])
      picture[top : top + 5, left : left + 7] = GROUND
  assert np.all(picture == GROUND)


def test_floats_and_uint8_give_one_picture():
  row = _random(2, 4, 4, 3)
  as_float = row.astype(np.float32) / 255
  np.testing.assert_array_equal(grids.grid([row]), grids.grid([as_float]))


def test_floats_are_clipped_and_nan_is_black():
  row = np.array([-1, 2, np.nan, np.inf], np.float32).reshape(1, 1, 4, 1)
  cells = grids.grid([row], pad=1, scale=1)[1, 1:5]
  np.testing.assert_array_equal(cells[:, 0], [0, 255, 0, 255])


def test_arrays_of_jax_are_pictures_too():
  row = jnp.array([0, 0.5, 1], jnp.bfloat16).reshape(3, 1, 1, 1)
  cells = grids.grid([row], pad=0, scale=1)
  np.testing.assert_array_equal(cells[0, :, 0], [0, 128, 255])


def test_other_integers_are_refused():
  with pytest.raises(ValueError, match='uint8 or float'):
    grids.grid([np.zeros((1, 4, 4, 3), np.int32)])


def test_small_pictures_grow_by_a_whole_factor():
  row = _random(1, 32, 32, 3)
  picture = grids.grid([row], pad=2)
  assert picture.shape == (100, 100, 3)
  np.testing.assert_array_equal(picture[2:-2:3, 2:-2:3], row[0])
  np.testing.assert_array_equal(picture[4:-2:3, 4:-2:3], row[0])
  assert grids.grid([_random(1, 28, 28, 3)], pad=0).shape == (112, 112, 3)


def test_middle_sizes_stay_as_they_are():
  row = _random(2, 128, 100, 3)
  picture = grids.grid([row], pad=0)
  np.testing.assert_array_equal(picture, np.concatenate(list(row), axis=1))


def test_photographs_shrink_to_one_height_and_keep_their_shape():
  photographs = [_flat(512, 1024, 50), _flat(300, 450, 90)]
  picture = grids.grid([photographs], pad=0)
  assert picture.shape == (256, 512 + 384, 3)
  assert np.all(picture[:, :512] == 50)
  assert np.all(picture[:, 512:] == 90)


def test_the_lowest_picture_sets_the_height_of_its_row_alone():
  rows = [[_flat(120, 120, 1), _flat(240, 240, 2)], [_flat(200, 100, 3)]]
  picture = grids.grid(rows, pad=0)
  assert picture.shape == (120 + 200, 240, 3)
  assert np.all(picture[:120, 120:] == 2)
  assert np.all(picture[120:, :100] == 3)
  assert np.all(picture[120:, 100:] == GROUND)


def test_shrinking_averages():
  checks = np.indices((512, 512)).sum(axis=0) % 2 * 255
  photograph = np.repeat(checks[..., None].astype(np.uint8), 3, axis=-1)
  inner = grids.grid([[photograph]], pad=0)[8:-8, 8:-8]
  assert abs(inner.astype(float).mean() - 127.5) < 2
  assert np.ptp(inner) < 20


def test_a_given_scale_shrinks_nothing():
  row = [_flat(300, 10, 1), _flat(20, 10, 2)]
  picture = grids.grid([row], pad=0, scale=2)
  assert picture.shape == (600, 40, 3)
  assert np.all(picture[:40, 20:] == 2)
  assert np.all(picture[40:, 20:] == GROUND)


def test_grey_pictures():
  grey = _random(2, 4, 4, 1)
  colour = grids.grid([grey.repeat(3, axis=-1)])
  np.testing.assert_array_equal(grids.grid([grey]), colour)
  np.testing.assert_array_equal(grids.grid([list(grey[..., 0])]), colour)


def test_labels_stand_at_the_left_and_move_nothing_else():
  rows = _random(2, 3, 32, 32, 3)
  plain = grids.grid(rows)
  labelled = grids.grid(rows, labels=['original', 'reconstruction'])
  width = labelled.shape[1] - plain.shape[1]
  assert labelled.shape[0] == plain.shape[0]
  np.testing.assert_array_equal(labelled[:, width + 2 :], plain[:, 2:])
  for half in np.split(labelled[:, :width], 2):
    assert half.min() < 128  # ink
    assert np.mean(half == GROUND) > 0.5
  swapped = grids.grid(rows, labels=['reconstruction', 'original'])
  assert np.any(swapped != labelled)


def test_a_label_higher_than_its_row_is_not_cut():
  row = [_flat(4, 4, 0)]
  picture = grids.grid([row], labels=['a\nb\nc\nd'], scale=1)
  assert picture.shape[0] > 4 * grids.FONT_SIZE


def test_grid_refuses_what_it_cannot_place():
  row = _random(1, 4, 4, 3)
  with pytest.raises(ValueError, match='at least one row'):
    grids.grid([])
  with pytest.raises(ValueError, match='at least one image'):
    grids.grid([row, []])
  with pytest.raises(ValueError, match='2 labels for 1 rows'):
    grids.grid([row], labels=['a', 'b'])
  with pytest.raises(ValueError, match='an image is'):
    grids.grid([np.zeros((1, 4, 4, 2))])


@pytest.mark.parametrize('gain', [1, 5, 2.5])
def test_error_image_is_exact(gain):
  a, b = _random(8, 8, 3), _random(8, 8, 3, seed=1)
  expected = np.abs(a.astype(int) - b.astype(int)) * gain
  expected = np.minimum(np.round(expected), 255)
  np.testing.assert_array_equal(grids.error_image(a, b, gain), expected)
  np.testing.assert_array_equal(
    grids.error_image(b / np.float32(255), a, gain), expected
  )


def test_error_image_by_hand():
  a = np.array([[[10, 20, 0]]], np.uint8)
  b = np.array([[[12, 20, 200]]], np.uint8)
  error = grids.error_image(a, b)
  assert error.dtype == np.uint8
  np.testing.assert_array_equal(error, [[[10, 0, 255]]])


def test_error_image_refuses_two_shapes():
  with pytest.raises(ValueError, match='differ in shape'):
    grids.error_image(_random(4, 4, 3), _random(1, 4, 3))


def test_reconstructions_are_three_rows():
  originals, outputs = _random(2, 96, 96, 3), _random(2, 96, 96, 3, seed=1)
  errors = grids.error_image(originals, outputs, gain=5)
  picture = grids.reconstructions(originals, outputs)
  rows = grids.grid([originals, outputs, errors], pad=4)
  np.testing.assert_array_equal(picture[:, -rows.shape[1] + 4 :], rows[:, 4:])


def test_reconstructions_of_photographs_of_many_sizes():
  originals = [_random(300, 200, 3), _random(256, 400, 3)]
  picture = grids.reconstructions(originals, originals)
  assert picture.shape[0] == 4 + 3 * 260
  errors = picture[4 + 2 * 260 :, -400:-4]
  assert np.all(errors[:256] == 0)


def test_reconstructions_must_pair_up():
  with pytest.raises(ValueError, match='longer'):
    grids.reconstructions(_random(2, 8, 8, 3), _random(3, 8, 8, 3))


def test_atoms_stand_in_a_block_below():
  images = _random(3, 96, 96, 3)
  atoms = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)
  atoms = np.broadcast_to(20 * atoms, (12, 8, 8, 3))
  labels_only = grids.reconstructions(images, images, atoms=atoms[:0])
  np.testing.assert_array_equal(
    labels_only, grids.reconstructions(images, images)
  )
  picture = grids.reconstructions(images, images, atoms=atoms)
  # At least 8 cells fit in a line: two lines of 6, 48 pixels each, 1 between.
  left = picture.shape[1] - 4 - 296
  block = picture[4 + 3 * 100 : -4, left:]
  assert block.shape[0] == 48 + 1 + 48
  for i in range(12):
    line, column = divmod(i, 6)
    cell = block[49 * line :, 49 * column :][:48, :48]
    assert np.all(cell == 20 * i), i


def test_at_most_64_atoms_are_drawn():
  images = _random(8, 32, 32, 3)
  atoms = _random(65, 4, 4, 3)
  most = grids.reconstructions(images, images, atoms=atoms[:64])
  more = grids.reconstructions(images, images, atoms=atoms)
  assert most.shape == more.shape
  block = slice(-800, None)
  np.testing.assert_array_equal(most[:, block], more[:, block])
  assert np.any(most != more)  # the label says how many there are


def test_large_atoms_shrink():
  images = _random(8, 32, 32, 3)
  atoms = np.full((4, 256, 256, 3), 0.4, np.float32)
  picture = grids.reconstructions(images, images, atoms=atoms)
  assert picture.shape[0] == 4 + 3 * 100 + 48 + 4


def test_png_holds_the_picture(tmp_path):
  picture = _random(5, 6, 3)
  save_png(tmp_path / 'a.png', picture)
  save_png(str(tmp_path / 'b.png'), picture / np.float32(255))
  for name in ('a.png', 'b.png'):
    with Image.open(tmp_path / name) as image:
      assert image.format == 'PNG'
      assert image.mode == 'RGB'
      np.testing.assert_array_equal(np.asarray(image), picture)
  assert sorted(os.listdir(tmp_path)) == ['a.png', 'b.png']


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'a.png'
  picture = _random(5, 6, 3)
  save_png(path, picture)

  def full_disk(self, file, **_):
    file.write(b'half')
    raise OSError('no space left')

  monkeypatch.setattr(Image.Image, 'save', full_disk)
  with pytest.raises(OSError, match='no space'):
    save_png(path, 255 - picture)
  monkeypatch.undo()
  assert os.listdir(tmp_path) == ['a.png']
  with Image.open(path) as image:
    np.testing.assert_array_equal(np.asarray(image), picture)
