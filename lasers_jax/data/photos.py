"""Opens the colour photographs of scikit-image and scikit-learn."""

import importlib.util
import logging
import os
from collections.abc import Mapping

from lasers_jax.data.sources import ImageFiles, no_split
from lasers_jax.errors import InputError, nearest

_log = logging.getLogger(__name__)

# The colour photographs inside the wheels of scikit-image and scikit-learn.
# motorcycle_right is left out: it is motorcycle_left seen from 20 cm beside.
_PHOTOS = {
  'astronaut': 'skimage/data/astronaut.png',
  'chelsea': 'skimage/data/chelsea.png',
  'china': 'sklearn/datasets/images/china.jpg',
  'coffee': 'skimage/data/coffee.png',
  'flower': 'sklearn/datasets/images/flower.jpg',
  'hubble_deep_field': 'skimage/data/hubble_deep_field.jpg',
  'ihc': 'skimage/data/ihc.png',
  'motorcycle_left': 'skimage/data/motorcycle_left.png',
  'retina': 'skimage/data/retina.jpg',
  'rocket': 'skimage/data/rocket.jpg',
}
_HELD_OUT = {'validation': ('rocket',), 'test': ('chelsea', 'coffee')}


def open_photos(
  rest: str,
  split: str,
  workdir: str | None = None,
  *,
  held_out: Mapping[str, tuple[str, ...]] | None = None,
) -> ImageFiles:
  """Opens the photographs that come with scikit-image and scikit-learn.

  Args:
    rest: must be empty: the name is 'photos'.
    split: 'train' has the photographs held out for no other split; 'all' has
      all.
    workdir: not used.
    held_out: the photographs of each other split; by default rocket for
      validation, chelsea and coffee for test.

  Raises:
    InputError: an unknown photograph or split, or an empty split.
  """
  if rest:
    raise InputError(f"the data is 'photos' alone, not 'photos:{rest}'")
  found = {name: _wheel_file(file) for name, file in _PHOTOS.items()}
  missing = [name for name, path in found.items() if not path]
  if missing:
    _log.warning('photos: not in the installed wheels: %s', ', '.join(missing))
  found = {name: path for name, path in found.items() if path}
  held_out = held_out or _HELD_OUT
  held = {name for names in held_out.values() for name in names}
  for name in sorted(held - set(found)):
    raise InputError(
      f'photos has no photograph {name!r} to hold out: it has '
      f'{", ".join(found)}{nearest(name, list(found))}'
    )
  splits = {'train': set(found) - held, 'all': set(found), **held_out}
  if split not in splits:
    raise no_split('photos', split, splits)
  paths = [path for name, path in found.items() if name in splits[split]]
  if not paths:
    raise InputError(
      f'the split {split!r} of photos is empty: held_out gives it none of '
      f'{", ".join(found) or "those not installed"}'
    )
  names = [os.path.basename(path) for path in paths]
  sizes = [os.path.getsize(path) for path in paths]
  labels = [-1] * len(paths)
  return ImageFiles('photos', split, paths, labels, None, names, sizes)


def _wheel_file(file: str) -> str | None:
  """Finds 'package/path' without importing the package."""
  package, _, rest = file.partition('/')
  spec = importlib.util.find_spec(package)
  for folder in (spec and spec.submodule_search_locations) or ():
    path = os.path.join(folder, rest)
    if os.path.isfile(path):
      return path
  return None
