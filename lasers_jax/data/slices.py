"""Slices of splits: 'train[:1000]', 'train[10%:]'."""

import re

from lasers_jax.errors import InputError

_SLICE = re.compile(r'(.+?)\[(?:(-?\d+)(%)?)?:(?:(-?\d+)(%)?)?\]')


def without_slice(split: str) -> str:
  """Returns the name of a split that may have a slice behind it."""
  found = _SLICE.fullmatch(split)
  return found[1] if found else split


def rows_of(split: str, count: int) -> range:
  """Returns the rows of a split of `count` images that its slice takes.

  A slice is as in tfds: 'train[:1000]', 'train[-500:]', 'train[10%:90%]', with
  percentages rounded to the nearest image.

  Raises:
    InputError: the slice takes no image.
  """
  found = _SLICE.fullmatch(split)
  if not found:
    return range(count)
  _, start, of_start, stop, of_stop = found.groups()
  first = _place(start, of_start, count, 0)
  last = _place(stop, of_stop, count, count)
  rows = range(count)[first:last]
  if not rows:
    raise InputError(f'{split!r} takes no image of {count}')
  return rows


def _place(text: str | None, percent: str | None, count: int, missing: int):
  if text is None:
    return missing
  return round(int(text) * count / 100) if percent else int(text)
