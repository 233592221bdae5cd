"""Makes a data source of any object with `len` and `[i]`."""

import hashlib
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from lasers_jax.data.sources import Source
from lasers_jax.errors import InputError, shown

_HASHED = 64  # images in the fingerprint, spread over all


class GivenSource:
  """A source of the images of an object.

  Args:
    images: `images[i]` is {'image': uint8 [h, w, 3], 'label': int} or the image
      alone.
    split: the name of the split.
  """

  classes = None

  def __init__(self, images: Any, split: str):
    self.name, self.split, self._images = 'given', split, images

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> dict:
    item = self._images[int(index)]
    if not isinstance(item, Mapping):
      item = {'image': item}
    if 'image' not in item:
      keys = ', '.join(map(repr, item))
      raise InputError(f"data[{index}] has no 'image', only {keys}")
    image, label = np.asarray(item['image']), item.get('label', -1)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
      raise InputError(
        f'data[{index}] must be an image uint8 [h, w, 3], and is '
        f'{image.dtype} {list(image.shape)}'
      )
    try:
      return {'image': image, 'label': operator.index(label)}
    except TypeError:
      raise InputError(
        f"data[{index}]['label'] is {shown(label)}: it must be a whole number, "
        '-1 for none'
      ) from None

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns the count, and a hash of some images, spread over all."""
    n, digest = len(self), hashlib.sha256()
    for i in np.unique(np.linspace(0, n - 1, min(n, _HASHED)).astype(int)):
      image = np.ascontiguousarray(self[i]['image'])
      digest.update(f'{i} {image.shape}'.encode())
      digest.update(image.tobytes())
    return {'count': n, 'hash': digest.hexdigest()[:32]}


def as_source(images: Any, split: str) -> Source:
  """Returns a source of an object with `len` and `[i]`, or that source itself.

  Raises:
    InputError: the object has neither, is empty, or its first item is no image.
  """
  if not hasattr(images, '__len__') or not hasattr(images, '__getitem__'):
    raise InputError(
      f'data must have a length and an index, and is {shown(images)}'
    )
  if not len(images):
    raise InputError(f'data of the split {split!r} is empty')
  if all(hasattr(images, x) for x in ('name', 'split', 'fingerprint')):
    return images
  source = GivenSource(images, split)
  source[0]
  return source
