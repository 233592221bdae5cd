"""Lists the images below a folder, and the files left out, with reasons."""

import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from PIL import Image

from lasers_jax.data.sources import nfc
from lasers_jax.errors import InputError

_log = logging.getLogger(__name__)

# Formats that Pillow opens and that are no images: documents, films, data.
_NO_IMAGES = set('BUFR EPS FITS GRIB HDF5 IPTC MPEG PDF WMF'.split())
# Images that Pillow reads only with a plugin.
_UNREAD = set(
  '.3fr .ai .arw .avci .bpg .cr2 .cr3 .crw .dcm .dcr .djvu .dng .emf .eps .erf '
  '.exr .fit .fits .flif .hdr .heic .heics .heif .heifs .hif .iiq .jng .jxl '
  '.jxr .kdc .mef .mos .mrw .nef .nrw .orf .pef .ps .psb .raf .raw .rw2 .rwl '
  '.sr2 .srf .srw .svg .svgz .wdp .wmf .x3f .xcf'.split()
)
HIDDEN, THUMBNAILS, WASTE = 'hidden', 'thumbnails', 'in a waste basket'
COPIES, OF_A_RUN = "a system's copies", "a run's own"
LINKED, BROKEN = 'there already, by a link', 'broken links'
SPECIAL, UNREAD = 'no regular files', 'of a kind that is not read'
# Files and folders that systems lay beside images, by lower-case name.
_NOT_DATA = {
  '.thumbnails': THUMBNAILS,
  '.thumbs': THUMBNAILS,
  '.@__thumb': THUMBNAILS,
  '@eadir': THUMBNAILS,
  'thumbnails': THUMBNAILS,
  'thumbs': THUMBNAILS,
  '.trash': WASTE,
  '.trashes': WASTE,
  '$recycle.bin': WASTE,
  'recycler': WASTE,
  'recycled': WASTE,
  '#recycle': WASTE,
  '@recycle': WASTE,
  '.appledouble': COPIES,
  '__macosx': COPIES,
  '#snapshot': HIDDEN,
  '~snapshot': HIDDEN,
  'system volume information': HIDDEN,
  'lost+found': HIDDEN,
}
# Files that mark a folder which this project has written.
_MARKS = (
  {'config.json', 'metrics.jsonl'},
  {'config.json', 'checkpoints'},
  {'results.json', 'results.png'},
  {'table.json', 'table.md'},
  {'curve.json', 'curve.md'},
)
# Names that a run writes into a folder, which may hold other images, too.
_WRITTEN = set(
  'checkpoints compare.png curve curve.png curves.png pictures pictures.png '
  'results.png samples tensorboard'.split()
)
_EVERY = 5.0  # seconds


class Listing(NamedTuple):
  """The images below a folder, as relative paths 'a/b.png'."""

  files: list[str]  # sorted by their NFC form
  left_out: list[tuple[str, str]]  # paths, and why
  folders: list[str]  # those directly below
  walked: Sequence[str] = ()  # the real paths of all folders that were read


class Progress:
  """Logs the progress of a work, at most every five seconds."""

  def __init__(self):
    self._last = time.monotonic()

  def __call__(self, text: str, *values: object) -> None:
    if time.monotonic() - self._last >= _EVERY:
      _log.info(text, *values)
      self._last = time.monotonic()


def by_form(path: str) -> tuple[str, str]:
  """Returns the sort key of a path, which orders all Unicode forms alike."""
  return nfc(path), path


@functools.cache
def endings() -> frozenset[str]:
  """Returns the lower-case endings of the images that can be read."""
  Image.init()
  return frozenset(
    ending.lower()
    for ending, kind in Image.registered_extensions().items()
    if kind in Image.OPEN and kind not in _NO_IMAGES
  )


def list_images(
  root: str, is_split: Callable[[str], bool] = lambda _: False
) -> Listing:
  """Lists the images below a folder, each once.

  Links are followed, except to images that are there already. Of several paths
  to one image, the listing has the one inside a folder that is directly below
  and a split by its name; else one without a link; else the first. The order in
  which the disk lists does not matter. Raises InputError where a folder cannot
  be read.
  """
  walk = _Walk(root, is_split)
  below = walk.folder('', None)
  for folder, why in below:
    if is_split(folder):
      walk.tree(folder, why)
  walk.follow(walk.in_split)
  for folder, why in below:
    if not is_split(folder):
      walk.tree(folder, why)
  walk.follow(lambda _: True)
  walk.add_links()
  gone = {folder for folder, _ in walk.left_out}
  return Listing(
    sorted(walk.files, key=by_form),
    sorted(walk.left_out, key=lambda pair: by_form(pair[0])),
    sorted(set(walk.first) - gone, key=by_form),
    list(walk.seen),
  )


class _Walk:
  """The images that `list_images` has found so far."""

  def __init__(self, root: str, is_split: Callable[[str], bool]):
    self.root, self.is_split = root, is_split
    self.files: list[str] = []
    self.links: list[str] = []  # to files
    self.linked: list[str] = []  # folders
    self.first: list[str] = []
    self.left_out: list[tuple[str, str]] = []
    self.seen: dict[str, str] = {}  # real paths of folders
    self.progress = Progress()

  def in_split(self, path: str) -> bool:
    """Returns whether a path begins with the folder of a split."""
    return self.is_split(path.partition('/')[0])

  def follow(self, chosen: Callable[[str], bool]) -> None:
    """Follows the chosen links to folders, and those found on the way."""
    above = os.path.realpath(self.root) + os.sep
    while found := sorted(filter(chosen, self.linked), key=by_form):
      folder = found[0]
      self.linked.remove(folder)
      real = os.path.realpath(os.path.join(self.root, folder))
      if above.startswith(real.rstrip(os.sep) + os.sep):  # in a circle
        self.left_out.append((folder, LINKED))
      else:
        self.tree(folder, None)

  def tree(self, top: str, why: str | None) -> None:
    """Walks a folder and all below; with a reason, all of it is left out."""
    pending = [(top, why)]
    while pending:
      pending += self.folder(*pending.pop())

  def folder(
    self, folder: str, why: str | None
  ) -> list[tuple[str, str | None]]:
    """Walks one folder; returns its sub-folders, and why each is left out."""
    path = os.path.join(self.root, folder)
    real = os.path.realpath(path)
    if real in self.seen:
      self.left_out.append((folder, LINKED))
      return []
    self.seen[real] = folder
    entries = sorted(_entries(path), key=lambda entry: by_form(entry.name))
    ours = _written_names({entry.name for entry in entries}, not folder)
    below = []
    for entry in entries:
      inner = f'{folder}/{entry.name}' if folder else entry.name
      reason = why or _reason(entry.name, ours)
      if not _is(entry.is_dir):
        self._file(inner, entry, reason)
        continue
      if reason == HIDDEN:  # a system's snapshots may lie in it
        self.left_out.append((inner, reason))
      elif not entry.is_symlink():
        below.append((inner, reason))
      elif not reason:
        self.linked.append(inner)
      if not folder and not reason:
        self.first.append(inner)
    self.progress('listing %s: %d images', self.root, len(self.files))
    return below

  def _file(self, inner: str, entry: os.DirEntry, why: str | None) -> None:
    ending = os.path.splitext(entry.name)[1].lower()
    if ending not in endings():
      if ending not in _UNREAD:
        return
      why = why or UNREAD
    if not why and not _is(entry.is_file):
      why = BROKEN if entry.is_symlink() else SPECIAL
    if why:
      self.left_out.append((inner, why))
    else:
      (self.links if entry.is_symlink() else self.files).append(inner)

  def _splits_first(self, path: str) -> tuple:
    return not self.in_split(path), by_form(path)

  def add_links(self) -> None:
    """Adds the linked files that are not there already."""
    if not self.links:
      return
    real = {folder: path for path, folder in self.seen.items()}
    there = {
      os.path.join(real[os.path.dirname(file)], os.path.basename(file)): file
      for file in self.files
    }
    for link in sorted(self.links, key=self._splits_first):
      target = os.path.realpath(os.path.join(self.root, link))
      other = there.setdefault(target, link)
      if other == link:
        continue
      if self.in_split(link) and not self.in_split(other):
        there[target] = link
        self.left_out.append((other, LINKED))
      else:
        self.left_out.append((link, LINKED))
    self.files = list(there.values())


def _is(kind: Callable[[], bool]) -> bool:
  """Returns whether an entry is of a kind; a link in a circle is of none."""
  try:
    return kind()
  except OSError:
    return False


def _entries(path: str) -> list[os.DirEntry]:
  try:
    with os.scandir(path) as found:
      return list(found)
  except OSError as error:
    raise InputError(
      f'{error.filename!r} cannot be read: {error.strerror}'
    ) from error


def _written_names(
  names: set[str], is_root: bool
) -> Callable[[str], bool] | None:
  """Returns a test of names that a run wrote in a folder; None without a run.

  All names pass, except in the folder of the user, where a run may lie beside
  images.
  """
  if not any(marks <= names for marks in _MARKS):
    return None
  return _WRITTEN.__contains__ if is_root else lambda _: True


def _reason(name: str, ours: Callable[[str], bool] | None) -> str | None:
  low = name.lower()
  if low in _NOT_DATA:
    return _NOT_DATA[low]
  if low.startswith('.trash-'):
    return WASTE
  if low.startswith('._'):
    return COPIES
  if low.startswith('.'):
    return HIDDEN
  return OF_A_RUN if ours and ours(name) else None


def count_reasons(left_out: Iterable[tuple[str, str]]) -> str:
  """Counts files by reason: 'hidden: 3 (.a.png, ...); broken links: 1 (b)'."""
  reasons: dict[str, list[str]] = {}
  for path, why in left_out:
    reasons.setdefault(why, []).append(path)
  return '; '.join(
    f'{why}: {len(paths):,} ({paths[0]}{", ..." if paths[1:] else ""})'
    for why, paths in reasons.items()
  )
