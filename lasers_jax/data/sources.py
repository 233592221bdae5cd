"""Sources of images: random access, and a fingerprint of the list of images.

`source[i]`, 0 <= i < len(source), is {'image': uint8 [h, w, 3], 'label': int}
with the label -1 where none is known. The data is checked when the source is
opened, so that a run does not fail in the middle.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from lasers_jax.core.storage import one_line
from lasers_jax.data.decoding import decode
from lasers_jax.data.stored import Stored
from lasers_jax.errors import InputError


class Images(Protocol):
  """A sequence of {'image': uint8 [h, w, 3], 'label': int or -1}."""

  def __len__(self) -> int: ...
  def __getitem__(self, index: int, /) -> dict: ...


class Source(Images, Protocol):
  """Images that have a name, a split and a fingerprint."""

  name: str
  split: str
  classes: list[str] | None  # the names of the labels 0, 1, ...

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns {'count': int, 'hash': str}, equal for equal lists of images.

    It depends neither on the place of the images nor on their order.
    """


class OpenSource(Protocol):
  """Opens one split of a source; `register_source` gives it a scheme.

  Its keyword-only arguments are the options of the source, which a config sets
  in `data.options`. Their annotations give the allowed values (see
  `core.ranges`). An option without a default is required.

  Args:
    rest: the name behind `scheme:`, or ''.
    split: the name of the training, validation or test split of a run.
    workdir: a folder in which the source may remember costly results; None
      remembers nothing.

  Raises:
    InputError: the data cannot be used.
  """

  def __call__(
    self, rest: str, split: str, workdir: str | None, **options: Any
  ) -> Source: ...


SOURCES: dict[str, OpenSource] = {}  # by scheme


class ImageFiles:
  """A source of image files.

  Args:
    name, split, classes: see `Source`.
    paths: of the files.
    labels: an integer for each.
    names: the name of each file in the fingerprint.
    bytes_: the size of each file.
    sizes: height and width of each image, if known.
  """

  def __init__(
    self,
    name: str,
    split: str,
    paths: Sequence[str],
    labels: Sequence[int],
    classes: list[str] | None,
    names: Sequence[str],
    bytes_: Sequence[int],
    sizes: Sequence[tuple[int, int]] = (),
  ):
    self.name, self.split, self.classes = name, split, classes
    self.paths, self.labels = list(paths), list(labels)
    self.sizes = list(sizes)
    self._names, self._bytes = list(names), list(bytes_)

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> dict:
    try:
      image = decode(self.paths[index])
      return {'image': image, 'label': self.labels[index]}
    except (OSError, SyntaxError, ValueError) as error:
      raise self._gone(index, error) from error

  def stored(self, index: int) -> Stored:
    """Returns an image as its file has it; InputError where that is gone."""
    try:
      with open(self.paths[index], 'rb') as file:
        return Stored(file.read(), self.labels[index], self._names[index])
    except OSError as error:
      raise self._gone(index, error) from error

  def _gone(self, index: int, error: Exception) -> InputError:
    return InputError(
      f'{self.paths[index]} can no longer be read ({error}): bring it back, or '
      'start again without it'
    )

  @property
  def fingerprint(self) -> dict[str, Any]:
    """Returns the count, and a hash of the names and sizes of the files."""
    pairs = zip(map(nfc, self._names), self._bytes, strict=True)
    return fingerprint_of(f'{name}\0{size}' for name, size in pairs)


def fingerprint_of(items: Iterable[str]) -> dict[str, Any]:
  """Counts and hashes strings, whatever their order."""
  lines = sorted(items)
  text = '\n'.join(lines).encode('utf-8', 'surrogateescape')
  return {'count': len(lines), 'hash': hashlib.sha256(text).hexdigest()[:32]}


def nfc(name: str) -> str:
  """Returns a name in the Unicode form in which names are compared."""
  return unicodedata.normalize('NFC', name)


def no_split(name: str, split: str, splits: Iterable[str]) -> InputError:
  """Returns the error for a split that does not exist."""
  splits = ', '.join(splits)
  return InputError(f'{name} has no split {split!r}: it has {splits}')


def unreadable(
  source: Source, index: int, error: Exception, remedy: str
) -> InputError:
  """Returns the error for an image that is damaged.

  An InputError is returned as it is: it says so already.
  """
  if isinstance(error, InputError):
    return error
  return InputError(
    f'{source.name}: image {index} of {source.split!r} cannot be read '
    f'({one_line(error)}): {remedy}'
  )
