"""Objects of a program as sources of images."""

import numpy as np
import pytest

from lasers_jax.data import as_source, open_source
from lasers_jax.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


def test_items_are_images_and_labels():
  items = [{'image': image, 'label': i} for i, image in enumerate(IMAGES)]
  source = as_source(items, 'train')
  assert (len(source), source.split, source.classes) == (5, 'train', None)
  np.testing.assert_array_equal(source[3]['image'], IMAGES[3])
  assert source[3]['label'] == 3


def test_images_alone_have_no_label():
  for images in IMAGES, list(IMAGES), [{'image': x} for x in IMAGES]:
    source = as_source(images, 'train')
    np.testing.assert_array_equal(source[1]['image'], IMAGES[1])
    assert source[1]['label'] == -1


def test_a_source_stays_as_it_is():
  source = open_source('photos', 'test')
  assert as_source(source, 'train') is source


def test_the_fingerprint_is_of_length_and_pixels():
  whole = as_source(IMAGES, 'train').fingerprint
  assert whole == as_source(list(IMAGES), 'test').fingerprint
  assert whole['count'] == 5
  changed = IMAGES.copy()
  changed[2, 1, 1, 1] ^= 1
  others = changed, IMAGES[:4], IMAGES.transpose(0, 2, 1, 3)
  prints = [as_source(x, 'train').fingerprint['hash'] for x in others]
  assert len({whole['hash'], *prints}) == 4


class Lazy:
  """An object that is no list; `item` is what it gives."""

  def __init__(self, item):
    self.item = item

  def __len__(self):
    return 2

  def __getitem__(self, index):
    return self.item


@pytest.mark.parametrize(
  'item, line',
  [
    (np.zeros((4, 4, 3)), r'data\[0\] must be .*, and is float64 \[4, 4, 3\]'),
    (np.zeros((4, 4), np.uint8), r'uint8 \[h, w, 3\], and is uint8 \[4, 4\]'),
    ({'images': IMAGES[0]}, r"data\[0\] has no 'image', only 'images'"),
    ({'image': IMAGES[0], 'label': 'cat'}, r"data\[0\]\['label'\] is 'cat': "),
  ],
)
def test_items_that_are_no_images_are_told(item, line):
  with pytest.raises(InputError, match=line):
    as_source(Lazy(item), 'train')


@pytest.mark.parametrize(
  'images, line',
  [
    (iter(IMAGES), 'must have a length and an index, and is <'),
    ([], "data of the split 'train' is empty"),
  ],
)
def test_objects_that_are_no_sources(images, line):
  with pytest.raises(InputError, match=line):
    as_source(images, 'train')
