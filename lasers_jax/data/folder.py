"""Opens a folder of the user's own images."""

import functools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lasers_jax.data.checking import Checked, check
from lasers_jax.data.listing import Listing, count_reasons, list_images
from lasers_jax.data.sources import ImageFiles, nfc
from lasers_jax.data.splits import Part, cut, split_named
from lasers_jax.data.together import by_the_first
from lasers_jax.errors import InputError

_log = logging.getLogger(__name__)

# In a workdir: which images were read to their ends and found good.
CHECKED = 'checked.npy'
# Longer strips are skipped: made as high as other images, they fill memory.
_LONGEST = 100  # times as long as wide
_NAMED = 10  # unreadable files that the log names
_COARSE = 2_000_000_000  # ns


def open_folder(
  rest: str, split: str, workdir: str | None = None
) -> ImageFiles:
  """Opens one split of a folder of images, nested or flat.

  Sub-folders that are called train, validation or test, in any usual way, are
  these splits. Where validation or test has no folder, a tenth of train is held
  out for it; without any such sub-folder, of the whole folder. A hash of the
  path inside the split's folder decides which images are held out, so that new
  images move no others. 'all' is the whole tree, and any other name is that of
  a sub-folder.

  The label is the number of the sub-folder directly under the split (in the
  order of `classes`), -1 for a flat folder.

  Left out, and counted on one line, are links to images that are there already,
  thumbnails, waste baskets, images that runs wrote, hidden files, and files
  that cannot be read. Each image is read to its end to find out.

  The first of several processes does this for all.

  Args:
    rest: the path of the folder.
    split: the name of the split.
    workdir: the folder of CHECKED, which remembers good images; see `check`.

  Raises:
    InputError: no image is left, or several folders may be the split.
  """
  if not rest:
    raise InputError("data 'folder' needs a path: say folder:/my/images")
  return by_the_first(functools.partial(_open, rest, split, workdir))


def _open(path: str, split: str, workdir: str | None) -> ImageFiles:
  root = os.path.normpath(os.path.expanduser(path))
  checked = workdir and os.path.join(workdir, CHECKED)
  if not os.path.isdir(root):
    raise InputError(f'there is no folder {root!r}: check the path')
  listing = _listed(root)
  part = cut(root, listing, split)
  top = os.path.join(root, part.base)
  inside = _inside(part.base, listing.files)
  left_out = [*_left_out(part, split, listing)]
  files = [file for file in inside if part.belongs(file)]
  if not files:
    raise _no_image(top, split, len(inside), left_out)
  if part.said:
    _log.info(
      '%s: %s; %s has %d of %d', root, part.said, split, len(files), len(inside)
    )
  classes = _classes(root, part.folders or [part.base], listing.files)
  found = check(root, [os.path.join(part.base, x) for x in files], checked)
  left_out += _faults(top, files, found)
  if left_out:
    _log.warning('%s, %s: left out: %s', root, split, count_reasons(left_out))
  _log_profiles(root, files, found)
  good = [i for i, item in enumerate(found) if not _fault(item)]
  number = {folder: i for i, folder in enumerate(classes)}
  files, found = [files[i] for i in good], [found[i] for i in good]
  return ImageFiles(
    f'folder:{root}',
    split,
    [os.path.join(top, file) for file in files],
    [number.get(nfc(file.split('/')[0]), -1) for file in files],
    classes or None,
    files,
    [item.bytes for item in found],
    [(item.look.height, item.look.width) for item in found],
  )


class _Listed(NamedTuple):
  """The last listing of a folder, and the times when it was changed."""

  root: str
  listing: Listing
  times: list[int]  # of change of the folders that were read, ns
  start: int  # when the listing began, ns


_last: _Listed | None = None


def _listed(root: str) -> Listing:
  """Lists a folder once for the splits that are opened one after another."""
  global _last
  if _last and _last.root == os.path.realpath(root):
    times = _times(_last.listing)
    # Clocks of disks are coarse: what changed just before may change again.
    if times == _last.times and max(times) < _last.start - _COARSE:
      return _last.listing
  start = time.time_ns()
  listing = list_images(root, lambda name: bool(split_named(name)))
  _last = _Listed(os.path.realpath(root), listing, _times(listing), start)
  return listing


def _times(listing: Listing) -> list[int]:
  """Returns when each folder was changed; 0 where it is gone."""
  times = []
  for folder in listing.walked:
    try:
      times.append(os.stat(folder).st_mtime_ns)
    except OSError:
      times.append(0)
  return times


def _inside(folder: str, paths: Sequence[str]) -> list[str]:
  """Returns the paths that begin with a folder, relative to it."""
  start = f'{folder}/' if folder else ''
  return [path[len(start) :] for path in paths if path.startswith(start)]


def _no_image(
  top: str, split: str, count: int, left_out: list[tuple[str, str]]
) -> InputError:
  also = f'; left out: {count_reasons(left_out)}' if left_out else ''
  if count:
    return InputError(
      f'none of the {count} images of {top!r} falls into the split {split!r} '
      f'by hash{also}: make folders train, validation and test, use the split '
      f"'all', or name another as data.{split} in the config"
    )
  return InputError(
    f'no image in {top!r}: looked for .png, .jpg and all others that Pillow '
    f'reads{also}'
  )


def _classes(
  root: str, folders: Sequence[str], files: Sequence[str]
) -> list[str]:
  """Returns the classes of all splits, so that a label means one class."""
  classes: set[str] = set()
  for folder in folders:
    forms: dict[str, str] = {}
    for path in _inside(folder, files):
      name, slash, _ = path.partition('/')
      if slash and forms.setdefault(nfc(name), name) != name:
        raise InputError(
          f'{os.path.join(root, folder)}: {name!a} and '
          f'{forms[nfc(name)]!a} are one name in two Unicode forms: '
          'rename one'
        )
    classes |= forms.keys()
  return sorted(classes)


def _left_out(
  part: Part, split: str, listing: Listing
) -> Iterator[tuple[str, str]]:
  """Yields files left out of a split, and why; those of none go with train."""
  for path, why in listing.left_out:
    if any(map(part.belongs, _inside(part.base, [path]))):
      yield path, why
  if split == 'train' and part.folders:
    starts = tuple(f'{folder}/' for folder in part.folders)
    beside = [(path, 'beside the folders of splits') for path in listing.files]
    for path, why in listing.left_out + beside:
      if not path.startswith(starts):
        yield path, why


def _log_profiles(
  root: str, files: Sequence[str], found: Sequence[Checked]
) -> None:
  """Logs how many colour profiles of images cannot be used."""
  bad = [
    (file, item.look.profile)
    for file, item in zip(files, found, strict=True)
    if item.look.profile
  ]
  if bad:
    _log.warning(
      '%s: %d colour profiles ignored, the first of %s: %s',
      root, len(bad), *bad[0],
    )  # fmt: skip


def _fault(item: Checked) -> tuple[str, str] | None:
  """Returns the kind of fault of an image, and the fault itself."""
  fault, (height, width) = item.look.fault, item.look[:2]
  if fault:
    too_large = fault.startswith('too large')
    return 'too large' if too_large else 'cannot be read', fault
  if max(height, width) > _LONGEST * min(height, width):
    return f'over {_LONGEST} times as long as wide', f'{height}x{width} pixels'
  return None


def _faults(
  top: str, files: Sequence[str], found: Sequence[Checked]
) -> list[tuple[str, str]]:
  """Returns faulty files and why; logs the first of them."""
  bad = [
    (file, *fault)
    for file, item in zip(files, found, strict=True)
    if (fault := _fault(item))
  ]
  for file, why, fault in bad[:_NAMED]:
    _log.warning('left out, %s: %s (%s)', why, os.path.join(top, file), fault)
  if len(bad) == len(files):
    file, _, fault = bad[0]
    raise InputError(
      f'none of the {len(files)} images in {top!r} can be read; the first, '
      f'{file}: {fault}'
    )
  return [(file, why) for file, why, _ in bad]
