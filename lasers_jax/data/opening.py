"""From the name of a data set to a source."""

import os
from collections.abc import Mapping, Sequence

from lasers_jax.data.folder import open_folder
from lasers_jax.data.photos import open_photos
from lasers_jax.data.sources import Source
from lasers_jax.data.tfds import open_tfds
from lasers_jax.errors import InputError


def open_source(
  name: str,
  split: str,
  *,
  root: str | os.PathLike | None = None,
  held_out: Mapping[str, Sequence[str]] | None = None,
  checked: str | os.PathLike | None = None,
) -> Source:
  """Opens the source called `name`, one split of it, checked and ready.

  - 'photos': colour photographs of scikit-image and scikit-learn, no download.
    `held_out` says which are whose: {'test': ('chelsea', 'flower')}; see
    `open_photos`.
  - 'folder:PATH', or 'folder' with `root`: any folder of pictures. See
    `open_folder` for splits and labels, and for `checked`.
  - any other name is a tfds data set ('mnist', 'name/config', 'name:version'),
    stored as array_record under `root`, TFDS_DATA_DIR or ~/tensorflow_datasets.
    The split may be any split string of tfds, as 'train[:90%]'.

  Raises InputError where the name, split, option or data cannot be used.
  """
  if name == 'photos':
    return open_photos(split, held_out or {})
  if held_out:
    raise InputError(
      f"held_out is an option of the data set 'photos', not of {name!r}: "
      'leave it empty'
    )
  if name == 'folder' or name.startswith('folder:'):
    path = name.partition(':')[2] or root
    if not path:
      raise InputError("data 'folder' needs a path: say folder:/my/pictures")
    return open_folder(path, split, checked)
  return open_tfds(name, split, root)
