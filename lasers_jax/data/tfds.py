"""Reads data sets of tfds that are stored as array_record."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from lasers_jax.data.sources import SOURCES, fingerprint_of, unreadable
from lasers_jax.data.stored import Stored, item_of
from lasers_jax.errors import InputError, nearest

_NAMES = 'file_name', 'image/filename', 'id'  # features that name an example
_ANEW = 'prepare the data set anew'


class TfdsSource:
  """A source that reads one split of a prepared tfds data set.

  Args:
    name, split, classes: see `Source`.
    records: the bytes of each example.
    feature: the name of the image in it.
    contents: lines that identify this list of images, for the fingerprint.
  """

  def __init__(self, name, split, records, feature, classes, contents):
    self.name, self.split, self.classes = name, split, classes
    self._records, self._feature, self._contents = records, feature, contents

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict:
    try:
      return item_of(self.stored(index))
    except (OSError, SyntaxError, ValueError) as error:
      raise unreadable(self, index, error, _ANEW) from error

  def stored(self, index: int) -> Stored:
    """Returns an image as it is stored; raises InputError where damaged."""
    from tensorflow_datasets.proto import tf_example_pb2 as example

    # Reading just these features is twice as fast as tfds's own decoding.
    try:
      record = example.Example.FromString(self._records[index])
      features = record.features.feature
      image = features[self._feature].bytes_list.value[0]
    except Exception as error:  # a damaged record may raise whatever it likes
      raise unreadable(self, index, error, _ANEW) from error
    labels = features['label'].int64_list.value if self.classes else ()
    names = [name for key in _NAMES for name in features[key].bytes_list.value]
    name = names[0].decode('utf-8', 'surrogateescape') if names else str(index)
    return Stored(image, labels[0] if labels else -1, name)

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns the count, and a hash of the data set's version and shards."""
    return {**fingerprint_of(self._contents), 'count': len(self)}


def open_tfds(
  rest: str,
  split: str,
  workdir: str | None = None,
  *,
  root: str | None = None,
) -> TfdsSource:
  """Opens a tfds data set that is stored as array_record, without TensorFlow.

  Args:
    rest: the name of the data set: 'mnist', 'name/config', 'name:version'.
    split: any split string of tfds, such as 'train[:90%]'.
    workdir: not used.
    root: the folder of prepared data sets; None takes TFDS_DATA_DIR, or
      ~/tensorflow_datasets.

  Raises:
    InputError: the data set is unknown, not prepared or stored as tfrecord
      (with the command to run), the split unknown, or its images of floats.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.decode import DeserializeMethod

  name = rest
  # tfds reads TFDS_DATA_DIR when it is imported; here it counts when used.
  where = root or os.environ.get('TFDS_DATA_DIR', tfds.core.constants.DATA_DIR)
  builder = _tfds_builder(name, where)
  features = dict(builder.info.features.items())
  feature = _image_feature(name, features)
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
  contents = [builder.info.full_name, split]
  contents += [
    f'{part} {info.shard_lengths} {info.num_bytes}'
    for part, info in builder.info.splits.items()
  ]
  classes = label.names if is_class else None
  return TfdsSource(name, split, records, feature, classes, contents)


def _image_feature(name: str, features: Mapping[str, Any]) -> str:
  """Finds the feature that is the image: `image`, or the only one."""
  import tensorflow_datasets as tfds

  found = [
    key
    for key, feature in features.items()
    if isinstance(feature, tfds.features.Image)
    and not isinstance(feature, tfds.features.LabeledImage)
  ]
  if 'image' in found:
    found = ['image']
  if len(found) != 1:
    raise InputError(
      f"{name} has no feature 'image', only {', '.join(features)}: choose a "
      'data set of images'
      + (f', or of one each: {" and ".join(found)} are' if found else '')
    )
  (key,) = found
  dtype = np.dtype(features[key].np_dtype)
  if dtype not in (np.uint8, np.uint16):
    raise InputError(
      f'{name} has images of {dtype} ({key}), whose range is not known: '
      'choose a data set of uint8 or uint16'
    )
  if features[key].shape[-1] == 2:
    raise InputError(
      f'{name} has images of 2 channels ({key}), which are no colours: '
      'choose a data set of 1, 3 or 4'
    )
  return key


def _tfds_builder(name: str, where: str | os.PathLike):
  """Finds the prepared data set by its files: no code of it, no network."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import naming, read_only_builder, registered

  try:
    return read_only_builder.builder_from_files(name, data_dir=where)
  except ValueError as error:  # DatasetNotFoundError is one
    known = tfds.list_builders(with_community_datasets=False)
    reason = error
  try:
    plain = str(naming.parse_builder_name_kwargs(name)[0])
  except ValueError:  # it is malformed
    plain = name
  else:
    if not isinstance(reason, registered.DatasetNotFoundError):
      raise InputError(
        f'{name} in {str(where)!r} cannot be opened: {reason}'
      ) from None
  if plain not in known:
    near = nearest(plain.partition(':')[0], [*SOURCES, *known])
    raise InputError(
      f'there is no data set {name!r}: say photos, folder:/my/images or a name '
      f'of tfds (TFDS_DATA_DIR: your own){near}'
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
