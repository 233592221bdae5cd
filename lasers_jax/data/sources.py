"""Random-access sources of pictures: photographs, tfds data sets, a folder.

`source[i]`, 0 <= i < len(source), is {'image': uint8 [h, w, 3], 'label': int}
with the label -1 where none is known. The data is checked when the source is
opened, so that a run does not fail in the middle.
"""

import concurrent.futures
import difflib
import hashlib
import importlib.util
import io
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageOps

from lasers_jax.errors import InputError

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
_EXTENSIONS = '.bmp .gif .jpeg .jpg .png .tif .tiff .webp'.split()
_SPLIT_FOLDERS = {
  'train': ('train',),
  'validation': ('validation', 'val', 'valid'),
  'test': ('test',),
}
# Above this many files a full decode of each takes minutes: headers only.
_MAX_FULL_CHECK = 20_000


class Source(Protocol):
  """A sequence of {'image': uint8 [h, w, 3], 'label': int}, -1 if unknown."""

  name: str
  split: str
  classes: list[str] | None  # the names of the labels 0, 1, ...

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> dict: ...


def open_source(
  name: str,
  split: str,
  *,
  root: str | os.PathLike | None = None,
  held_out: Mapping[str, Sequence[str]] | None = None,
) -> Source:
  """Opens the source called `name`, one split of it, checked and ready.

  - 'photos': colour photographs of scikit-image and scikit-learn, no download.
    `held_out` says which are whose: {'test': ('chelsea', 'flower')}; 'train'
    is the rest, 'all' is all.
  - 'folder:PATH', or 'folder' with `root`: any folder of pictures. See
    `open_folder` for splits and labels.
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
    return open_folder(path, split)
  return open_tfds(name, split, root)


def decode(file: str | os.PathLike | BinaryIO) -> np.ndarray:
  """Reads a picture file as RGB, uint8 [h, w, 3], the right way up (EXIF).

  Grey and palette become RGB, transparency is laid over white, 16-bit grey is
  scaled to 8 bits, of an animation the first frame is taken. Raises OSError,
  SyntaxError or ValueError where the file is no readable picture.
  """
  with Image.open(file) as picture:
    return _as_rgb(picture)


def _as_rgb(picture: Image.Image) -> np.ndarray:
  picture = ImageOps.exif_transpose(picture)
  if picture.mode == 'F':
    raise ValueError('floating-point picture: its range is not known')
  if picture.mode.startswith('I'):
    grey = (np.asarray(picture).clip(0, 65535).astype(np.int32) + 128) // 257
    picture = Image.fromarray(grey.astype(np.uint8))
  elif picture.has_transparency_data:
    white = Image.new('RGBA', picture.size, 'white')
    picture = Image.alpha_composite(white, picture.convert('RGBA'))
  return np.asarray(picture.convert('RGB'))


class PictureFiles:
  """A source of picture files: paths, and an integer label for each."""

  def __init__(self, name, split, paths, labels, classes):
    self.name, self.split, self.classes = name, split, classes
    self.paths, self.labels = list(paths), list(labels)

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> dict:
    return {'image': decode(self.paths[index]), 'label': self.labels[index]}


def open_photos(
  split: str, held_out: Mapping[str, Sequence[str]]
) -> PictureFiles:
  """Opens the photographs that scikit-image and scikit-learn bring along.

  `held_out` maps a split to its photographs; 'train' is those in none, 'all'
  is all. Raises InputError for an unknown photograph or split, and for an
  empty split.
  """
  found = {name: _wheel_file(file) for name, file in _PHOTOS.items()}
  missing = [name for name, path in found.items() if not path]
  if missing:
    _log.warning('photos: not in the installed wheels: %s', ', '.join(missing))
  found = {name: path for name, path in found.items() if path}
  held = {name for names in held_out.values() for name in names}
  for name in sorted(held - set(found)):
    raise InputError(
      f'photos has no photograph {name!r} to hold out{_nearest(name, found)}; '
      f'it has {", ".join(found)}'
    )
  splits = {'train': set(found) - held, 'all': set(found), **held_out}
  if split not in splits:
    raise _no_split('photos', split, splits)
  paths = [path for name, path in found.items() if name in splits[split]]
  if not paths:
    raise InputError(
      f'the split {split!r} of photos is empty: held_out gives it none of '
      f'{", ".join(found) or "those not installed"}'
    )
  return PictureFiles('photos', split, paths, [-1] * len(paths), None)


def _wheel_file(file: str) -> str | None:
  """Finds 'package/path' without importing the package."""
  package, _, rest = file.partition('/')
  spec = importlib.util.find_spec(package)
  for folder in (spec and spec.submodule_search_locations) or ():
    path = os.path.join(folder, rest)
    if os.path.isfile(path):
      return path
  return None


def open_folder(path: str | os.PathLike, split: str) -> PictureFiles:
  """Opens one split of a folder of pictures, nested or flat.

  Where the folder has sub-folders named train, validation (val, valid) or
  test, `split` names one of them. Otherwise a hash of each picture's path
  inside the folder decides: a tenth of them each for 'test' and 'validation',
  the rest for 'train'; a picture keeps its split when others are added. 'all'
  is always the whole tree.

  The label is the number of the sub-folder directly under the split (in the
  order of `classes`), -1 for a flat folder. Files that cannot be decoded are
  named in a warning and left out. Each file is decoded for that; with more
  than 20,000 files only the headers are read, and a picture damaged further
  inside then stops the run with its name. Raises InputError where no picture
  is left.
  """
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    raise InputError(f'there is no folder {str(root)!r}: check the path')
  base, by_hash = _split_base(root, split)
  files = _picture_paths(base)
  if by_hash:
    files = [file for file in files if _split_of(file) == split]
    if not files:
      raise InputError(
        f'no picture of {str(root)!r} falls into the split {split!r} by hash: '
        "use the split 'all', or make the sub-folders train and test"
      )
  files = _readable(base, files)
  classes = sorted({file.split('/')[0] for file in files if '/' in file})
  number = {folder: i for i, folder in enumerate(classes)}
  labels = [number.get(file.split('/')[0], -1) for file in files]
  paths = [str(base / file) for file in files]
  return PictureFiles(f'folder:{root}', split, paths, labels, classes or None)


def _split_base(root: pathlib.Path, split: str) -> tuple[pathlib.Path, bool]:
  """Returns the folder of a split, and whether a hash has yet to choose."""
  if split == 'all':
    return root, False
  for folder in _SPLIT_FOLDERS.get(split, (split,)):
    if (root / folder).is_dir():
      return root / folder, False
  names = [name for names in _SPLIT_FOLDERS.values() for name in names]
  present = [name for name in names if (root / name).is_dir()]
  if present or split not in _SPLIT_FOLDERS:
    raise _no_split(str(root), split, [*(present or _SPLIT_FOLDERS), 'all'])
  return root, True


def _picture_paths(base: pathlib.Path) -> list[str]:
  """Lists the pictures under `base`, as sorted 'a/b.png' relative paths."""

  def fail(error: OSError):
    raise InputError(f'{error.filename!r} cannot be read: {error.strerror}')

  files, seen = [], set()
  for folder, below, names in os.walk(base, onerror=fail, followlinks=True):
    if os.path.realpath(folder) in seen:  # a link back up would never end
      below.clear()
      continue
    seen.add(os.path.realpath(folder))
    below[:] = [name for name in below if not name.startswith('.')]
    files += [
      (pathlib.Path(folder) / name).relative_to(base).as_posix()
      for name in names
      if pathlib.Path(name).suffix.lower() in _EXTENSIONS
      and not name.startswith('.')
    ]
  if not files:
    raise InputError(
      f'no picture in {str(base)!r}: looked for {" ".join(_EXTENSIONS)}'
    )
  return sorted(files)


def _split_of(file: str) -> str:
  digest = hashlib.sha256(file.encode('utf-8', 'surrogateescape')).digest()
  tenth = int.from_bytes(digest[:8]) % 10
  return {0: 'test', 1: 'validation'}.get(tenth, 'train')


def _readable(base: pathlib.Path, files: list[str]) -> list[str]:
  """Leaves out, and names in warnings, the files that cannot be decoded."""
  full = len(files) <= _MAX_FULL_CHECK
  if not full:
    _log.warning('%s: %d files, so only headers are checked', base, len(files))
  with concurrent.futures.ThreadPoolExecutor() as pool:
    faults = list(pool.map(lambda file: _fault(base / file, full), files))
  bad = [(f, fault) for f, fault in zip(files, faults, strict=True) if fault]
  for file, fault in bad:
    _log.warning('left out, cannot be read: %s (%s)', base / file, fault)
  if len(bad) == len(files):
    raise InputError(
      f'none of the {len(files)} pictures in {str(base)!r} can be read; the '
      f'first, {bad[0][0]}: {bad[0][1]}'
    )
  if bad:
    _log.warning('%s: %d of %d pictures left out', base, len(bad), len(files))
  return [file for file, fault in zip(files, faults, strict=True) if not fault]


def _fault(path: pathlib.Path, full: bool) -> str | None:
  try:
    with Image.open(path) as picture:
      if full:
        # An eighth of the side: a JPEG is read to its end, at a low cost.
        picture.draft(None, (1, 1))
        _as_rgb(picture)
  except Exception as error:  # a damaged file may raise whatever it likes
    return str(error) or type(error).__name__
  return None


class TfdsSource:
  """A source that reads one split of a prepared tfds data set."""

  def __init__(self, name, split, records, classes):
    self.name, self.split, self.classes = name, split, classes
    self._records = records

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict:
    from tensorflow_datasets.proto import tf_example_pb2 as example

    # Reading just the two features is twice as fast as tfds's own decoding.
    features = example.Example.FromString(self._records[index]).features.feature
    image = decode(io.BytesIO(features['image'].bytes_list.value[0]))
    label = features['label'].int64_list.value[0] if self.classes else -1
    return {'image': image, 'label': label}


def open_tfds(
  name: str, split: str, root: str | os.PathLike | None = None
) -> TfdsSource:
  """Opens a tfds data set that is stored as array_record, without TensorFlow.

  `root` is the folder of prepared data sets (TFDS_DATA_DIR by default). Raises
  InputError where the data set is unknown, not prepared or stored as tfrecord
  (with the command to run), the split unknown, or an example has no picture.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.decode import DeserializeMethod

  # tfds reads TFDS_DATA_DIR when it is imported; here it counts when used.
  where = root or os.environ.get('TFDS_DATA_DIR', tfds.core.constants.DATA_DIR)
  builder = _tfds_builder(name, where)
  features = dict(builder.info.features.items())
  if not isinstance(features.get('image'), tfds.features.Image):
    raise InputError(
      f"{name} has no feature 'image', only {', '.join(features)}: choose a "
      'data set of pictures'
    )
  formats = {format.value for format in builder.info.available_file_formats()}
  if 'array_record' not in formats:
    # tfds does not write a second format beside the first.
    other = str(where).rstrip('/') + '_array_record'
    raise InputError(
      f'{name} is stored as {", ".join(formats)}, which cannot be read at '
      f'random: prepare it anew with `{_prepare(name, other)}` and set '
      f'TFDS_DATA_DIR={other}'
    )
  try:
    records = builder.as_data_source(
      split,
      deserialize_method=DeserializeMethod.RAW_BYTES,
      file_format='array_record',
    )
  except ValueError as error:
    splits = ', '.join(builder.info.splits)
    reason = str(error).splitlines()[0].rstrip('.')
    raise InputError(
      f'{name} cannot give the split {split!r} ({reason}): it has {splits}'
    ) from None
  label = features.get('label')
  is_class = isinstance(label, tfds.features.ClassLabel)
  return TfdsSource(name, split, records, label.names if is_class else None)


def _tfds_builder(name: str, where: str | os.PathLike):
  """Finds the prepared data set by its files: no code of it, no network."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import naming, read_only_builder

  try:
    return read_only_builder.builder_from_files(name, data_dir=where)
  except ValueError:  # DatasetNotFoundError is one, a malformed name too
    known = tfds.list_builders(with_community_datasets=False)
  try:
    plain = str(naming.parse_builder_name_kwargs(name)[0])
  except ValueError:
    plain = name
  if plain not in known:
    names = ['photos', 'folder', *known]
    raise InputError(
      f'there is no data set {name!r}{_nearest(plain, names)}; say photos, '
      'folder:/my/pictures or a name of tfds (TFDS_DATA_DIR: your own)'
    )
  raise InputError(
    f'{name} is not prepared in {str(where)!r}: run `{_prepare(name, where)}` '
    'once (it needs tensorflow-cpu), or set TFDS_DATA_DIR to where it is'
  )


def _prepare(name: str, where: str | os.PathLike) -> str:
  # Not `tfds build`: of tfds 4.9.10 it does not start without apache-beam.
  return (
    f'TFDS_DATA_DIR={where} python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}', file_format='array_record')"
    '.download_and_prepare()"'
  )


def _nearest(name: str, names: Iterable[str]) -> str:
  near = difflib.get_close_matches(name, list(names), 1)
  return f', did you mean {near[0]!r}?' if near else ''


def _no_split(name: str, split: str, splits: Iterable[str]) -> InputError:
  splits = ', '.join(splits)
  return InputError(f'{name} has no split {split!r}: it has {splits}')
