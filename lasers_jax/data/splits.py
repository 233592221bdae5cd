"""Finds the splits of a data set among its folders."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lasers_jax.data.listing import Listing
from lasers_jax.data.sources import nfc, no_split
from lasers_jax.errors import InputError

# As published data sets call them, in any case; `eval` is a test split, as in
# the library `datasets`.
_NAMES = {
  'train': 'train|trains|training|trainings|trn',
  'validation': 'validation|validations|val|vals|valid|valids|validate|'
  'validating|vld|dev|devel|development',
  'test': 'test|tests|testing|testings|tst|eval|evaluation',
}
_WORD = '|'.join(_NAMES.values())
# Words that say nothing: train_images, TrainSet, my-train, train2017.
_FILLER = (
  'the|my|new|set|sets|split|splits|data|dataset|image|images|img|imgs|'
  'picture|pictures|pic|pics|photo|photos|folder|dir|file|files|samples|part'
)


class Part(NamedTuple):
  """One split of a listing: its folder, and a test of the paths inside."""

  base: str  # '' is all of it
  belongs: Callable[[str], bool]
  said: str = ''  # a line that explains a split without a folder of its own
  folders: Sequence[str] = ()  # of all splits; empty: `base` holds them all


def _words(name: str) -> list[str]:
  """Returns the words of a name in lower case, without single letters."""
  name = unicodedata.normalize('NFKC', name)
  words = re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+', name)
  return [word.casefold() for word in words if len(word) > 1]


def split_named(name: str) -> str | None:
  """Returns the split that a folder of this name usually is; None for none.

  >>> split_named('TRAIN'), split_named('val2017'), split_named('bullet_train')
  ('train', 'validation', None)
  """
  whole = ''.join(_words(name))
  for split, words in _NAMES.items():
    if re.fullmatch(f'(?:{_FILLER})*(?:{words})(?:{_FILLER})*', whole):
      return split
  return None


def split_in(name: str) -> str | None:
  """Returns the one split among the words of a name; None for none or more.

  >>> split_in('cats-train-0001.tar'), split_in('cats-0001.tar')
  ('train', None)
  """
  found = {
    split
    for split, words in _NAMES.items()
    if any(re.fullmatch(words, word) for word in _words(name))
  }
  return found.pop() if len(found) == 1 else None


def _looks_like_split(name: str) -> bool:
  words = _words(name)
  return any(re.fullmatch(_WORD, word) for word in words) or bool(
    re.fullmatch(f'(?:{_FILLER})*(?:{_WORD})+(?:{_FILLER})*', ''.join(words))
  )


def split_by_hash(path: str) -> str:
  """Returns 'test' or 'validation' for a tenth of paths each, else 'train'."""
  data = nfc(path).encode('utf-8', 'surrogateescape')
  tenth = int.from_bytes(hashlib.sha256(data).digest()[:8]) % 10
  return {0: 'test', 1: 'validation'}.get(tenth, 'train')


def cut(root: str, listing: Listing, split: str) -> Part:
  """Finds one split of a listed folder; see `open_folder`.

  Raises InputError where there is none, and where folders may be splits but
  their names do not tell which.
  """
  if split == 'all':
    return Part('', _whole)
  known: dict[str, list[str]] = {}
  for folder in listing.folders:
    known.setdefault(split_named(folder) or '', []).append(folder)
  others = known.pop('', [])
  folders = [folder for named in known.values() for folder in named]
  if split not in _NAMES:
    folder = _called(split, listing.folders)
    if not folder:
      raise no_split(root, split, [*(folders or _NAMES), 'all'])
    usual = split_named(folder)
    if not usual or len(known[usual]) > 1:
      return Part(folder, _whole)
    split = usual
  said = _check_look_alikes(root, split, known, others)
  if not known:
    _check_deeper(root, listing.files)
    return Part('', lambda path: split_by_hash(path) == split, said)
  held = [x for x in ('validation', 'test') if x not in known]
  if split in known and not (split == 'train' and held):
    return Part(_only(root, split, known[split]), _whole, '', folders)
  if 'train' not in known:
    raise no_split(root, split, [*folders, 'all'])
  base = _only(root, 'train', known['train'])
  names = ' or '.join(held)
  said = f'no folder for {names}: a tenth each of {base} is held out'
  if split == 'train':
    return Part(base, lambda x: split_by_hash(x) not in held, said, folders)
  return Part(base, lambda path: split_by_hash(path) == split, said, folders)


def _whole(_: str) -> bool:
  return True


def _called(name: str, folders: Sequence[str]) -> str | None:
  """Returns the folder of a name, whose case may differ if it is unique."""
  if name in folders:
    return name
  found = [x for x in folders if nfc(x).casefold() == nfc(name).casefold()]
  return found[0] if len(found) == 1 else None


def _only(root: str, split: str, folders: list[str]) -> str:
  if len(folders) > 1:
    names = ' and '.join(map(repr, folders))
    raise InputError(
      f'{root}: {names} are both the split {split!r}: rename all but one, or '
      f'say data.{split}={folders[0]} in the config'
    )
  return folders[0]


def _check_look_alikes(
  root: str, split: str, known: dict[str, list[str]], others: list[str]
) -> str:
  """Returns a line on folders that look like splits and are not taken as such.

  Raises InputError where they are so many that they may well be splits.
  """
  found = [folder for folder in others if _looks_like_split(folder)]
  if not found or split in known:
    return ''
  names = ', '.join(map(repr, found[:5]))
  # One class of many may be called so: bullet_train.
  if 2 * len(found) < len(others):
    return f'{names}: taken for no split' if split == 'train' else ''
  likely = [x for x in found if re.search(_NAMES[split], ' '.join(_words(x)))]
  raise InputError(
    f'{root}: {names} may be splits, and none is called {split!r}: rename the '
    f'folder, or say data.{split}={[*likely, "FOLDER"][0]} in the config'
  )


def _check_deeper(root: str, files: Sequence[str]) -> None:
  """Raises InputError where a folder inside holds train and another split."""
  splits: dict[str, dict[str, str]] = {}
  for folder in {os.path.dirname(file) for file in files}:
    while '/' in folder:
      above, name = os.path.split(folder)
      usual = split_named(name)
      if usual:
        splits.setdefault(above, {}).setdefault(usual, folder)
      folder = above
  for above, found in sorted(splits.items()):
    if 'train' in found and len(found) > 1:
      names = ' and '.join(map(repr, sorted(found.values())))
      raise InputError(
        f'{root}: {names} are splits further down: say folder:{root}/{above}, '
        "make folders train, validation and test, or use the split 'all'"
      )
