"""What a source of pictures is: random access, and a list that can be told.

`source[i]`, 0 <= i < len(source), is {'image': uint8 [h, w, 3], 'label': int}
with the label -1 where none is known. The data is checked when the source is
opened, so that a run does not fail in the middle.
"""

import difflib
import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from lasers_jax.data.decoding import decode
from lasers_jax.errors import InputError


class Source(Protocol):
  """A sequence of {'image': uint8 [h, w, 3], 'label': int}, -1 if unknown."""

  name: str
  split: str
  classes: list[str] | None  # the names of the labels 0, 1, ...

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> dict: ...

  @property
  def fingerprint(self) -> dict[str, Any]:
    """{'count': int, 'hash': str}: equal where the list of pictures is.

    Neither where the pictures lie nor in which order they were found counts.
    """


class PictureFiles:
  """A source of picture files.

  Args:
    name, split, classes: see `Source`.
    paths: of the files.
    labels: an integer for each.
    names: what the fingerprint takes for the name of each.
    bytes_: the size of each file.
    sizes: height and width of each picture, where they are known.
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
    path = self.paths[index]
    try:
      return {'image': decode(path), 'label': self.labels[index]}
    except (OSError, SyntaxError, ValueError) as error:
      raise InputError(
        f'{path} can no longer be read ({error}): bring it back, or start '
        'again without it'
      ) from error

  @property
  def fingerprint(self) -> dict[str, Any]:
    """See `Source`: of the names inside the split, and the sizes of files."""
    pairs = zip(map(nfc, self._names), self._bytes, strict=True)
    return fingerprint_of(f'{name}\0{size}' for name, size in pairs)


def fingerprint_of(items: Iterable[str]) -> dict[str, Any]:
  """Counts and hashes strings, whatever their order."""
  lines = sorted(items)
  text = '\n'.join(lines).encode('utf-8', 'surrogateescape')
  return {'count': len(lines), 'hash': hashlib.sha256(text).hexdigest()[:32]}


def nfc(name: str) -> str:
  """The one Unicode form in which names are compared, sorted and hashed."""
  return unicodedata.normalize('NFC', name)


def nearest(name: str, names: Iterable[str]) -> str:
  """A hint at the nearest of some names, or nothing."""
  near = difflib.get_close_matches(name, list(names), 1)
  return f', did you mean {near[0]!r}?' if near else ''


def no_split(name: str, split: str, splits: Iterable[str]) -> InputError:
  """The error of a split that is not there."""
  splits = ', '.join(splits)
  return InputError(f'{name} has no split {split!r}: it has {splits}')
