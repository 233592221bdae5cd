"""Packs the images of any source into shards that are read at random."""

import concurrent.futures
import dataclasses
import json
import logging
import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from lasers_jax.core import storage
from lasers_jax.core.ranges import Whole
from lasers_jax.data.opening import open_source
from lasers_jax.data.records import MANIFEST, PLAN, Manifest, read_manifest
from lasers_jax.data.shards import (
  Job,
  Packing,
  note_of,
  read_note,
  write_shard,
  writing,
)
from lasers_jax.data.slices import without_slice
from lasers_jax.data.sources import Source
from lasers_jax.data.workers import apart, end_with_parent
from lasers_jax.errors import InputError, TrainingError

_log = logging.getLogger(__name__)

_USUAL = 'train', 'validation', 'test'
_NAMED = 100  # skipped images that a manifest names
_OFTEN = 0.2  # seconds between two looks at the progress
_given: tuple = ()  # to a process that packs: source, packing, count of images


def pack_splits(
  name: str,
  target: str,
  packing: Packing,
  splits: Sequence[str] | None = None,
  workers: Whole = 0,
  options: Mapping[str, Any] | None = None,
) -> dict[str, Manifest]:
  """Packs splits of the source called `name`; returns their manifests.

  Args:
    name, options: see `open_source`.
    target, packing, workers: see `pack`.
    splits: their names; None packs train, and validation and test where they
      are.

  Raises:
    InputError: a split cannot be opened, or see `pack`.
    TrainingError: see `pack`.
  """
  if target.startswith('s3://'):
    raise InputError(
      f'{target}: packed images are read from gs:// and disks alone (by '
      'array_record): choose a target there'
    )
  # A folder remembers there which files are good.
  workdir = None if storage.is_remote(target) else target
  return {
    without_slice(source.split): pack(source, target, packing, workers)
    for source in open_splits(name, splits, workdir, options)
  }


def open_splits(
  name: str,
  splits: Sequence[str] | None,
  workdir: str | None,
  options: Mapping[str, Any] | None,
) -> Iterator[Source]:
  """Opens one split after the other; see `pack_splits` and `open_source`."""
  for split in splits or _USUAL:
    try:
      yield open_source(name, split, workdir, options)
    except InputError as error:
      if splits or split == _USUAL[0]:
        raise
      _log.info('no split %r: %s', split, error)


def pack(
  source: Source, target: str, packing: Packing, workers: Whole = 0
) -> Manifest:
  """Packs one open split of a source into a folder; returns its manifest.

  The folder is TARGET/SPLIT, without a slice. Each shard is written whole, and
  the manifest last, so that the same call goes on where another was
  interrupted, with the same result. Images that cannot be decoded are left out,
  and named in the manifest.

  Args:
    source: see `open_source`.
    target: a folder, local or on `gs://`.
    packing: how to pack.
    workers: processes; 0 packs in this one.

  Raises:
    InputError: the folder holds other images or settings, cannot be written, or
      no image can be decoded.
    TrainingError: a process has ended.
  """
  folder = os.path.join(target, without_slice(source.split))
  plan = _plan(source, packing)
  manifest = read_manifest(folder)
  if manifest is not None:
    check_plan(folder, manifest.plan, plan)
    return manifest
  begin(folder, plan)
  jobs = jobs_of(folder, len(source), packing.per_shard)
  notes = _write_all(jobs, source, packing, workers)
  return _finish(folder, plan, source, notes)


def begin(folder: str, plan: dict[str, Any]) -> None:
  """Makes a folder of shards that are to follow a plan, or goes on there.

  Raises:
    InputError: it was begun by another plan, or cannot be written.
  """
  with writing(folder):
    storage.make_folder(folder)
  kept = os.path.join(folder, PLAN)
  if storage.exists(kept):
    check_plan(folder, json.loads(storage.read_text(kept)), plan)
  else:
    with writing(folder):
      storage.write_text(kept, storage.as_json(plan))


def jobs_of(folder: str, count: int, per_shard: int) -> list[Job]:
  """Returns the shards of so many images."""
  return [
    Job(folder, number, range(count)[number * per_shard :][:per_shard])
    for number in range(math.ceil(count / per_shard))
  ]


def end(folder: str, count: int) -> None:
  """Removes what led to so many shards, once what says of them is written."""
  for number in range(count):
    storage.remove(note_of(Job(folder, number, range(0))))
  storage.remove(os.path.join(folder, PLAN))
  for name in storage.names(folder):
    if name.startswith('.') and name.endswith(storage.PART):
      storage.remove(os.path.join(folder, name))  # a killed process left it


def _plan(source: Source, packing: Packing) -> dict[str, Any]:
  """Returns what is packed, and how, as JSON has it."""
  plan = {
    'source': source.name,
    'split': source.split,
    'fingerprint': source.fingerprint,
    **dataclasses.asdict(packing),
  }
  if packing.side is None:
    plan |= {'encoding': 'as they are', 'quality': None}
  elif packing.encoding == 'png':
    plan['quality'] = None
  return plan


def check_plan(folder: str, there: Any, plan: dict[str, Any]) -> None:
  """Raises InputError where a folder was packed by another plan."""
  for key, now in plan.items():
    before = there.get(key) if isinstance(there, dict) else None
    if key == 'source' or before == now:  # the same images may have moved
      continue
    if key == 'fingerprint':
      was = there['source'] if isinstance(there, dict) else 'another source'
      raise InputError(
        f'{folder} holds images of {was} that are not those of '
        f'{plan["source"]}: choose another target, or remove it'
      )
    raise InputError(
      f'{folder} was packed with {key}={before}, not {now}: say so, choose '
      'another target, or remove it'
    )


def _write_all(
  jobs: Sequence[Job], source: Source, packing: Packing, workers: int
) -> list[dict[str, Any]]:
  """Writes the shards that are not there; returns the note of each."""
  notes = [read_note(job) for job in jobs]
  todo = [job for job, note in zip(jobs, notes, strict=True) if note is None]
  done = len(source) - sum(len(job.rows) for job in todo)
  title = f'pack {source.split}'
  with tqdm(
    total=len(source), initial=done, desc=title, unit='image', disable=None
  ) as bar:
    if workers and todo:
      made = _by_processes(todo, source, packing, workers, bar)
    else:
      made = (write_shard(job, source, packing, bar.update) for job in todo)
    found = iter(made)
    return [next(found) if note is None else note for note in notes]


def _by_processes(
  jobs: Sequence[Job], source: Source, packing: Packing, workers: int, bar
) -> Iterator[dict[str, Any]]:
  """Yields the notes of shards that processes write, in order."""
  context = multiprocessing.get_context('spawn')
  with apart():
    count = context.Value('q', 0)
    pool = concurrent.futures.ProcessPoolExecutor(
      min(workers, len(jobs)), context, _start, (source, packing, count)
    )
    futures = [pool.submit(_work, job) for job in jobs]
  try:
    left, start = set(futures), bar.n
    while left:
      done, left = concurrent.futures.wait(
        left, _OFTEN, concurrent.futures.FIRST_EXCEPTION
      )
      bar.update(start + count.value - bar.n)
      for future in done:
        future.result()  # raises
    yield from (future.result() for future in futures)
  except BrokenProcessPool:
    raise TrainingError(
      'a process that packs images has ended, perhaps for want of memory: '
      'lower --workers; the same command goes on'
    ) from None
  finally:
    pool.shutdown(cancel_futures=True)


def _start(source: Source, packing: Packing, count) -> None:
  """Prepares a process that packs."""
  global _given
  end_with_parent()
  _given = source, packing, count


def _work(job: Job) -> dict[str, Any]:
  source, packing, count = _given

  def update(images: int) -> None:
    with count.get_lock():
      count.value += images

  return write_shard(job, source, packing, update)


def _finish(
  folder: str, plan: dict[str, Any], source: Source, notes: Sequence[dict]
) -> Manifest:
  """Writes the manifest, and removes the notes that led to it."""
  skipped = [tuple(x) for note in notes for x in note['skipped']]
  counts = [note['count'] for note in notes]
  if not sum(counts):
    name, why = skipped[0]
    raise InputError(
      f'none of the {len(skipped)} images of {source.name} can be decoded; the '
      f'first, {name}: {why}'
    )
  total = sum(int(note['hash'], 16) for note in notes) % 2**128
  manifest = Manifest(
    plan,
    source.classes,
    counts,
    [note['size'] for note in notes],
    f'{total:032x}',
    len(skipped),
    skipped[:_NAMED],
  )
  with writing(folder):
    path = os.path.join(folder, MANIFEST)
    storage.write_text(path, storage.as_json(dataclasses.asdict(manifest)))
  end(folder, len(notes))
  return manifest
