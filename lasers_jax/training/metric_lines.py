"""The lines of metrics.jsonl: appended on a disk, rewritten in a bucket.

A bucket has no append. There the lines are kept in memory and the object is
written anew from time to time, which stays cheap since it is written in parts:
metrics.jsonl, metrics-1.jsonl, metrics-2.jsonl, ...
"""

import io
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from lasers_jax.core import storage
from lasers_jax.errors import InputError

FILE = 'metrics.jsonl'
EVERY = 30  # seconds between two writes of an object
LINES = 10_000  # of a part: some 4 MB


class Appended:
  """Appends lines to the file of a workdir on a disk."""

  def __init__(self, workdir: str):
    self._file = storage.appending(os.path.join(workdir, FILE))

  def write(self, line: dict[str, Any]) -> None:
    """Writes a line, at once."""
    try:
      self._file.write(_text([line]))
      self._file.flush()
    except OSError as error:
      error.filename = self._file.name  # Python names it only when it opens.
      raise

  def flush(self) -> None:
    """Does nothing: every line is written."""

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


class Rewritten:
  """Writes lines to the objects of a workdir in a bucket."""

  def __init__(self, workdir: str):
    self._workdir = workdir
    *_, (self._part, self._lines) = _parts(workdir)
    self._new, self._last = 0, time.monotonic()

  def write(self, line: dict[str, Any]) -> None:
    """Takes a line; writes all where that is due."""
    if len(self._lines) >= LINES:
      self.flush()
      self._part, self._lines = self._part + 1, []
    self._lines.append(line)
    self._new += 1
    if time.monotonic() - self._last >= EVERY:
      try:
        self.flush()
      except InputError as error:  # the next time may be better
        logging.warning('%s', error)
        self._last = time.monotonic()

  def flush(self) -> None:
    """Writes the lines that are not written yet."""
    if self._new:
      _write(self._workdir, self._part, self._lines)
      self._new, self._last = 0, time.monotonic()

  def close(self) -> None:
    """Writes the lines that are not written yet."""
    self.flush()


def open_after(workdir: str, step: int) -> Appended | Rewritten:
  """Opens the lines of a run that goes on from a step, without those after it.

  They were written beyond the last checkpoint.
  """
  # From the end, so that the parts have no gap wherever this is broken off.
  for part, lines in reversed(list(_parts(workdir))):
    kept = [x for x in lines if x['step'] <= step]
    if not kept and part:
      storage.remove(_path(workdir, part))
    elif kept or storage.exists(_path(workdir, part)):
      _write(workdir, part, kept)
  return (Rewritten if storage.is_remote(workdir) else Appended)(workdir)


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """Reads the lines of a run that are whole, in order; none without a file."""
  return [line for _, lines in _parts(workdir) for line in lines]


def _parts(workdir: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
  """Yields the number and the lines of each part, at least of the first."""
  for part in itertools.count():
    try:
      data = storage.read_bytes(_path(workdir, part))
    except FileNotFoundError:
      if not part:
        yield 0, []
      return
    yield part, list(_whole(data))


def _whole(data: bytes) -> Iterator[dict[str, Any]]:
  for text in io.StringIO(data.decode('utf-8', 'replace')):
    try:
      line = json.loads(text)
    except ValueError:  # Half-written.
      continue
    if isinstance(line, dict) and isinstance(line.get('step'), int):
      yield line


def _write(workdir: str, part: int, lines: list[dict[str, Any]]) -> None:
  storage.write_text(_path(workdir, part), _text(lines))


def _path(workdir: str, part: int) -> str:
  stem, ending = os.path.splitext(FILE)
  return os.path.join(workdir, f'{stem}-{part}{ending}' if part else FILE)


def _text(lines: list[dict[str, Any]]) -> str:
  return ''.join(json.dumps(line) + '\n' for line in lines)
