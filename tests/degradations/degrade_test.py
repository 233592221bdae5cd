"""Degradations are pure functions of an image and a key."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lasers_jax.core.images import to_float
from lasers_jax.degradations import (
  DEGRADATIONS,
  degrade,
  in_evaluation,
  prepared,
  row_keys,
)
from lasers_jax.degradations.jpeg import jpeg
from lasers_jax.degradations.masks import MASKS, near
from lasers_jax.errors import InputError
from tests import tiny

KEYS = row_keys(jax.random.key(0), 8)


def photographs(side=48):
  from skimage import data

  images = data.astronaut(), data.coffee(), data.chelsea()
  return [
    np.ascontiguousarray(x[100 : 100 + side, 150 : 150 + side]) for x in images
  ]


def psnr(a, b):
  return -10 * np.log10(np.mean((np.asarray(a) - np.asarray(b)) ** 2))


@pytest.mark.parametrize('name', DEGRADATIONS)
def test_alone_in_a_batch_and_jitted_are_the_same(name):
  # Of masks, one of few operations: each is compiled alone.
  fields = {'mask': 'box'} if name == 'inpaint' else {}
  settings, images = DEGRADATIONS[name](**fields), to_float(tiny.images(8))
  whole = degrade(settings, images, KEYS)
  jitted = jax.jit(degrade, static_argnums=0)(settings, images, KEYS)
  again = degrade(settings, images, KEYS)
  for i in (0, 5):
    alone = degrade(settings, images[i : i + 1], KEYS[i : i + 1])
    for one, x, y, z in zip(alone, whole, jitted, again, strict=True):
      np.testing.assert_array_equal(x[i], z[i])
      np.testing.assert_allclose(one[0], x[i], atol=1e-5)
      np.testing.assert_allclose(y[i], x[i], atol=1e-5)
  assert whole.inputs.shape == (8, 16, 16, settings.channels)
  assert whole.inputs.dtype == jnp.float32
  assert whole.weights.shape == whole.known.shape == (8, 16, 16, 1)


@pytest.mark.parametrize('name', DEGRADATIONS)
def test_evaluation_does_as_training_where_no_program_is_simulated(name):
  settings = DEGRADATIONS[name]()
  if name in ('deblock', 'mixed'):
    pytest.skip('of JPEG')
  image = tiny.images(1)[0]
  key = jax.random.fold_in(jax.random.key(settings.seed), 7)
  expected = degrade(settings, to_float(image[None]), key[None])
  found = in_evaluation(settings, image, 7)
  for x, y in zip(expected, found, strict=True):
    np.testing.assert_allclose(x[0], y, atol=1e-6)


def test_two_indices_have_two_masks_and_a_seed_has_its_own():
  image = tiny.images(1)[0]
  settings = DEGRADATIONS['inpaint'](mask='pixels')
  other = DEGRADATIONS['inpaint'](mask='pixels', seed=1)
  first = in_evaluation(settings, image, 0).known
  assert (first != in_evaluation(settings, image, 1).known).any()
  assert (first != in_evaluation(other, image, 0).known).any()


def test_the_first_masks_stay_as_they_are():
  image = np.zeros((8, 8, 3), np.uint8)
  settings = DEGRADATIONS['inpaint'](mask='pixels')
  masks = [1 - in_evaluation(settings, image, i).known for i in (0, 1)]
  packed = [np.packbits(mask.astype(bool)).tobytes().hex() for mask in masks]
  assert packed == PIXELS
  settings = DEGRADATIONS['inpaint'](mask='strokes')
  mask = 1 - in_evaluation(settings, np.zeros((16, 16, 3), np.uint8), 2).known
  assert np.packbits(mask.astype(bool)).tobytes().hex() == STROKED


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_small_images_and_enlarged_ones_are_those_of_pillow(scale):
  def resized(image, factor):
    planes = [Image.fromarray(plane) for plane in np.moveaxis(image, -1, 0)]
    side = round(image.shape[0] * factor)
    planes = [p.resize((side, side), Image.Resampling.BICUBIC) for p in planes]
    return np.stack([np.asarray(p) for p in planes], axis=-1)

  image = to_float(photographs(48)[0])
  settings = DEGRADATIONS['superres'](scale=scale)
  plain = jax.image.resize(image, (48 // scale, 48 // scale, 3), 'cubic')
  small = resized(np.asarray(image), 1 / scale)
  np.testing.assert_allclose(plain, small, atol=1e-6)
  np.testing.assert_allclose(
    settings.shrink(image), np.round(255 * small.clip(0, 1)) / 255, atol=1e-6
  )
  small = np.asarray(settings.shrink(image))
  large = 255 * resized(small, scale).clip(0, 1)
  found = 255 * degrade(settings, image[None], KEYS[:1]).inputs[0]
  np.testing.assert_allclose(found, np.round(found), atol=1e-4)
  # Where it is not half-way between two values, they round alike.
  between = abs(large % 1 - 0.5) > 1e-3
  np.testing.assert_allclose(
    found[between], np.round(large)[between], atol=1e-4
  )


def test_a_scale_of_one_changes_nothing():
  image = to_float(photographs()[1])
  settings = DEGRADATIONS['superres'](scale=1)
  found = degrade(settings, image[None], KEYS[:1]).inputs[0]
  np.testing.assert_allclose(found, image, atol=1e-6)


def test_area_is_the_mean_of_squares():
  image = jnp.zeros((4, 4, 3)).at[0, 0].set(1.0)
  small = DEGRADATIONS['superres'](scale=2, kernel='area').shrink(image)
  np.testing.assert_allclose(small[0, 0], 64 / 255, atol=1e-6)
  assert float(jnp.sum(small[1:])) == 0


@pytest.mark.parametrize('chroma', ['420', '444'])
@pytest.mark.parametrize('quality', [10, 40])
def test_simulated_jpeg_is_as_far_from_the_original_as_that_of_pillow(
  quality, chroma
):
  settings = DEGRADATIONS['deblock'](quality=(quality,), chroma=chroma)
  for image in photographs(128):
    file = in_evaluation(settings, image, 0).inputs
    made = jax.jit(jpeg, static_argnums=2)(to_float(image), quality, chroma)
    difference = psnr(made, image / 255) - psnr(file, image / 255)
    assert abs(difference) < 0.02


def test_a_grey_image_stays_grey_in_jpeg():
  grey = np.broadcast_to(photographs(40)[0][..., :1], (40, 40, 3))
  made = jpeg(to_float(grey), 10, '420')
  np.testing.assert_array_equal(made[..., :1].repeat(3, -1), made)
  assert made.shape == (40, 40, 3)  # which is no multiple of 16


def test_the_file_of_evaluation_is_that_of_pillow():
  image, file = photographs()[0], io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', quality=20, subsampling='4:2:0')
  found = in_evaluation(DEGRADATIONS['deblock'](quality=(20,)), image, 3)
  with Image.open(file) as decoded:
    np.testing.assert_allclose(255 * found.inputs, decoded, atol=1e-4)


def test_strokes_cover_from_a_twentieth_to_a_half():
  draw = jax.jit(jax.vmap(lambda key: MASKS['strokes'](key, 64, 64, 0.5)))
  masks = np.asarray(draw(row_keys(jax.random.key(1), 100)))
  assert set(np.unique(masks)) == {0, 1}
  shares = masks.mean(axis=(1, 2))
  assert np.sum((shares >= 0.05) & (shares <= 0.5)) >= 95
  assert len(np.unique(shares)) > 50


def test_strokes_of_no_length_are_dots():
  point = jnp.array([[8.5, 3.5]])
  mask = np.asarray(near(point, point, jnp.array([2.0]), 16, 16))[0]
  assert mask.sum() == 13
  assert mask[8, 1:6].all()
  assert not near(point, point, jnp.array([-1.0]), 16, 16).any()


@pytest.mark.parametrize(
  'mask, low, high',
  [
    ('centre', 0.25, 0.25),
    ('box', 0.0625, 0.25),
    ('thin_strokes', 0.05, 0.5),
    ('medium_strokes', 0.05, 0.5),
    ('pixels', 0.45, 0.55),
    ('mixed', 0.05, 0.55),
  ],
)
def test_shares_of_masks(mask, low, high):
  draw = jax.vmap(lambda key: MASKS[mask](key, 64, 64, 0.5))
  shares = np.asarray(draw(KEYS)).mean(axis=(1, 2))
  assert low <= shares.min()
  assert shares.max() <= high


def test_holes_are_grey_and_the_mask_is_the_fourth_channel():
  image = tiny.images(1)[0]
  found = in_evaluation(DEGRADATIONS['inpaint'](mask='centre'), image, 0)
  holes = found.known[..., 0] == 0
  assert holes[4:12, 4:12].all()
  assert holes.sum() == 64
  np.testing.assert_array_equal(found.inputs[..., 3], holes)
  np.testing.assert_array_equal(found.inputs[holes][:, :3], 0.5)
  np.testing.assert_allclose(
    found.inputs[~holes][:, :3], image[~holes] / 255, atol=1e-6
  )
  np.testing.assert_allclose(found.weights[..., 0], np.where(holes, 1, 0.1))
  pasted = DEGRADATIONS['inpaint'](mask='centre', protocol='input')
  assert in_evaluation(pasted, image, 0).weights[~holes].max() == 0


def test_noise_has_its_deviation_and_is_not_clipped():
  image = np.zeros((64, 64, 3), np.uint8)
  noise = in_evaluation(DEGRADATIONS['denoise'](sigma=(25.0,)), image, 0).inputs
  assert abs(255 * noise.std() - 25) < 1
  assert noise.min() < 0
  rounded = DEGRADATIONS['denoise'](rounded=True)
  found = 255 * in_evaluation(rounded, image, 0).inputs
  np.testing.assert_allclose(found, np.round(found), atol=1e-4)
  assert found.min() == 0
  several = DEGRADATIONS['denoise'](sigma=(5.0, 50.0))
  spread = [
    255 * in_evaluation(several, image, i).inputs.std() for i in range(9)
  ]
  assert min(spread) > 4
  assert max(spread) < 52
  assert np.ptp(spread) > 10


def test_colorize_leaves_luma():
  image = np.full((4, 4, 3), (255, 0, 0), np.uint8)
  found = in_evaluation(DEGRADATIONS['colorize'](), image, 0).inputs
  np.testing.assert_allclose(255 * found, 76, atol=1e-3)


def test_mixed_meets_every_part():
  settings, image = DEGRADATIONS['mixed'](), photographs(16)[0]
  inputs = [in_evaluation(settings, image, i).inputs for i in range(24)]
  rounded = [np.allclose(255 * x, np.round(255 * x), atol=1e-3) for x in inputs]
  assert 0 < sum(rounded) < 24  # noise alone is not
  assert len({x.tobytes() for x in inputs}) > 8


@pytest.mark.parametrize(
  'name, fields, message',
  [
    ('superres', {'kernel': 'cubi'}, "kernel is 'cubi': did you mean cubic?"),
    ('inpaint', {'mask': 'stroke'}, "mask is 'stroke': did you mean strokes?"),
    ('denoise', {'protocol': 'both'}, "protocol is 'both': it must be one of"),
    ('deblock', {'chroma': '422'}, "chroma must be '420' or '444': '422'"),
  ],
)
def test_words_that_are_unknown(name, fields, message):
  with pytest.raises(InputError, match=message):
    DEGRADATIONS[name](**fields)


def test_sides_that_do_not_divide():
  image = np.zeros((16, 18, 3), np.uint8)
  with pytest.raises(InputError, match='scale=4 does not divide .* 16x18'):
    in_evaluation(DEGRADATIONS['superres'](scale=4), image, 0)
  with pytest.raises(InputError, match='scale=4 does not divide'):
    in_evaluation(DEGRADATIONS['mixed'](), image, 0)


def test_masks_that_do_not_fit():
  image, inpaint = tiny.images(1)[0], DEGRADATIONS['inpaint']()
  with pytest.raises(InputError, match='needs a mask'):
    prepared(inpaint, image)
  with pytest.raises(InputError, match='takes no mask'):
    prepared(DEGRADATIONS['denoise'](), image, np.zeros((16, 16), bool))
  with pytest.raises(InputError, match='mask is 8x16 and the image 16x16'):
    prepared(inpaint, image, np.zeros((8, 16), bool))


def test_what_is_degraded_already_is_prepared_alike():
  image = tiny.images(1)[0]
  found = in_evaluation(DEGRADATIONS['inpaint'](mask='centre'), image, 0)
  made = prepared(DEGRADATIONS['inpaint'](), image, found.known[..., 0] == 0)
  np.testing.assert_array_equal(made, found.inputs)
  settings = DEGRADATIONS['superres'](scale=2)
  found = in_evaluation(settings, image, 0)
  small = settings.observed(image, found)
  assert small.shape == (8, 8, 3)
  np.testing.assert_array_equal(prepared(settings, small), found.inputs)


# np.packbits of the masks of evaluation, indices 0 and 1; and of strokes.
PIXELS = ['79684c499e0d2152', 'deaefccbbff495a8']
STROKED = '0000000000000000000000000000003c03fc03fe03fe07fe0ffc3ff07ff07ee0'
