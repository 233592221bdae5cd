"""Writes the latents or codes of images into shards, for others to train on.

TARGET/SPLIT/00000.safetensors ...  arrays of the images of a shard: `latents`
                                    [n, H, W, D], or `codes` and its parts; and
                                    `label` int32 [n], -1 without one. The
                                    metadata has `names`, a list in JSON
TARGET/SPLIT/00000.array_record ... instead: a record an image, the bytes of a
                                    safetensors file of the same arrays without
                                    their first axis, and `name`
TARGET/SPLIT/stats.json             written last: see `write_split`
"""

import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from safetensors.numpy import save
from tqdm import tqdm

from lasers_jax import data, inference
from lasers_jax.core import storage
from lasers_jax.core.arrays import flat_names
from lasers_jax.core.ranges import Count, check_fields
from lasers_jax.data.packing import (
  begin,
  check_plan,
  end,
  jobs_of,
  open_splits,
)
from lasers_jax.data.records import shard_name
from lasers_jax.data.shards import (
  Job,
  note_of,
  part_of,
  publish,
  read_note,
  record_writer,
  writing,
)
from lasers_jax.data.slices import without_slice
from lasers_jax.data.stored import name_of
from lasers_jax.errors import InputError, unknown
from lasers_jax.experiment.exported import STATS
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.priors.latents import images_of, local
from lasers_jax.experiment.sources import GIVEN

CONTENTS = 'latents', 'codes'
KINDS = 'safetensors', 'array_record'

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Shards:
  """How latents are written.

  Attributes:
    content: 'latents', what the decoder receives, or 'codes', what is stored.
    kind: of the files.
    side: of the square images, cropped to the centre; None takes that of the
      model's training.
    per_shard: images of a shard.
  """

  content: Literal['latents', 'codes'] = 'latents'
  kind: Literal['safetensors', 'array_record'] = 'safetensors'
  side: Count | None = None
  per_shard: Count = 4096

  def __post_init__(self):
    check_fields(self)
    for key, words in ('content', CONTENTS), ('kind', KINDS):
      if getattr(self, key) not in words:
        raise unknown(key, getattr(self, key), words)


def write_latents(
  model: TrainedModel,
  target: str,
  shards: Shards,
  name: str = '',
  splits: Sequence[str] | None = None,
  options: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
  """Writes the latents of splits of images; returns what stats.json says.

  Args:
    target: a folder, local or on `gs://`.
    name, options: of the images, as `data.name` and `data.options` of a config;
      '' takes those of the model.
    splits: their names; None takes train, and validation and test where they
      are.

  Raises:
    InputError: a split cannot be opened, or see `write_split`.
  """
  target, settings = storage.absolute(target), model.experiment.data
  if not name:
    name, options = settings.name, settings.options
    if name == GIVEN:
      raise InputError(
        'the images of this run were given by a program: name others (--data)'
      )
  opened = open_splits(name, splits, None, options)
  return {
    without_slice(source.split): write_split(model, source, target, shards)
    for source in opened
  }


def write_split(
  model: TrainedModel, source: data.Source, target: str, shards: Shards
) -> dict[str, Any]:
  """Writes the latents of the images of a source into TARGET/SPLIT.

  Each shard is written whole, and stats.json last, so that the same call goes
  on where another was interrupted, with the same bytes. Processes share the
  shards.

  Returns:
    What stats.json says: `mean` and `std` of each channel of the latents, over
    all sites (of the latents of codes, too), the `count` of images, `weights`,
    the hash of the model, and how the shards were made.

  Raises:
    InputError: the folder holds the latents of others, or cannot be written.
  """
  model = local(model)
  folder = os.path.join(target, without_slice(source.split))
  plan, file = _plan(model, source, shards), os.path.join(folder, STATS)
  if storage.exists(file):
    found = json.loads(storage.read_text(file))
    check_plan(folder, found, plan)
    return found
  begin(folder, plan)
  jobs = jobs_of(folder, len(source), shards.per_shard)
  todo = [job for job in jobs if read_note(job) is None]
  mine = todo[jax.process_index() :: jax.process_count()]
  for job in tqdm(mine, desc=f'latents of {source.split}', disable=None):
    _write(job, model, source, plan)
  _wait('shards')
  stats = {**plan, 'classes': source.classes, **_joined(jobs)}
  if jax.process_index() == 0:
    with writing(folder):
      storage.write_text(file, storage.as_json(stats))
    end(folder, len(jobs))
  _wait('statistics')
  return stats


def _wait(what: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f'latents: {what}')


def _plan(
  model: TrainedModel, source: data.Source, shards: Shards
) -> dict[str, Any]:
  """Returns what is written, and how, as JSON has it."""
  settings = model.experiment.data
  plan = {
    'source': source.name,
    'split': source.split,
    'fingerprint': source.fingerprint,
    'weights': model.weights,
    'changes': dict(model.changes),
    'resize': settings.resize,
    **dataclasses.asdict(shards),
    'side': shards.side or settings.side,
  }
  return json.loads(storage.as_json(plan))


def _write(
  job: Job, model: TrainedModel, source: data.Source, plan: Mapping[str, Any]
) -> None:
  """Writes a shard whole or not at all, and then its note."""
  arrays, latents = _coded(job, model, source, plan)
  names = [name_of(source, i) for i in job.rows]
  path = path_of(job, plan['kind'])
  with part_of(path) as part, writing(path):
    if plan['kind'] == 'array_record':
      write, close = record_writer(part)
      for record in _records(arrays, names):
        write(record)
      close()
    else:
      with storage.written_whole(part) as file:
        file.write(save(arrays, {'names': json.dumps(names)}))
    publish(part, path)
  rows = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
  note = {
    'count': len(names),
    'sites': len(rows),
    'sum': rows.sum(axis=0).tolist(),
    'squares': (rows**2).sum(axis=0).tolist(),
  }
  with writing(path):
    storage.write_text(note_of(job), storage.as_json(note))


def path_of(job: Job, kind: str) -> str:
  """Returns the path of a shard."""
  stem, _ = os.path.splitext(shard_name(job.number))
  return os.path.join(job.folder, f'{stem}.{kind}')


def _coded(
  job: Job, model: TrainedModel, source: data.Source, plan: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Returns the arrays of a shard, and its latents."""
  found, latents, labels = [], [], []
  for images, label in images_of(model, source, job.rows, plan['side']):
    coded = inference.encode(model.module, model.variables, images, model.mesh)
    found.append(flat_names({'codes': coded[0]}))
    latents.append(coded[1])
    labels.append(label)
  joined = np.concatenate(latents)
  arrays = {'latents': joined}
  if plan['content'] == 'codes':
    arrays = {
      name: np.concatenate([np.asarray(x[name]) for x in found])
      for name in found[0]
    }
  return {**arrays, 'label': np.concatenate(labels).astype(np.int32)}, joined


def _records(
  arrays: Mapping[str, np.ndarray], names: Sequence[str]
) -> Iterator[bytes]:
  """Yields the record of each image."""
  for i, name in enumerate(names):
    row = {key: np.array(array[i], order='C') for key, array in arrays.items()}
    yield save(row, {'name': name})


def _joined(jobs: Sequence[Job]) -> dict[str, Any]:
  """Returns the statistics of all shards, by their notes."""
  notes = [note for job in jobs if (note := read_note(job)) is not None]
  sites = sum(note['sites'] for note in notes)
  total, squares = (
    np.sum([note[key] for note in notes], axis=0) for key in ('sum', 'squares')
  )
  mean = total / sites
  variance = np.maximum(squares / sites - mean**2, 0)
  return {
    'count': sum(note['count'] for note in notes),
    'counts': [note['count'] for note in notes],
    'sites': sites,
    'mean': mean.tolist(),
    'std': np.sqrt(variance).tolist(),
  }
