"""Codes the images of a split, once, into files of a workdir."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from lasers_jax import data
from lasers_jax.core import sharding, storage
from lasers_jax.core.arrays import read_arrays, write_arrays
from lasers_jax.errors import InputError
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.priors.labels import labels_for
from lasers_jax.experiment.priors.views import View

FOLDER = 'latents'
IMAGES = 4_096  # of a file
_COMPARED = 64  # rows that are coded again when files are used again


def local(model: TrainedModel) -> TrainedModel:
  """Returns a model on the devices of this process alone."""
  if jax.process_count() == 1:
    return model
  mesh = sharding.make_mesh(devices=jax.local_devices())
  home = sharding.replicated(mesh)
  variables = jax.device_put(jax.device_get(model.variables), home)
  return dataclasses.replace(model, mesh=mesh, variables=variables)


def code_split(
  view: View, source: data.Source, workdir: str, mirrored: bool
) -> dict[str, np.ndarray]:
  """Returns the view and the labels of the images of a split.

  They are coded where the workdir does not hold them yet: files of 4,096
  images, shared by the processes, each written whole, so that a run that was
  stopped goes on. Images are cropped to the centre. The planes of events are
  in files as the code has them.

  Args:
    view: of a model on this process's devices; see `local`.
    source: of the images.
    workdir: of the prior.
    mirrored: whether the mirror image of each image is coded, too. It is a row
      of its own, since the code of a mirror image is not the mirrored code.

  Returns:
    `view` [n, H, W, ...], integers of the smallest type that holds them or
    float32, and `label` int32 [n], -1 without one.

  Raises:
    InputError: the files are damaged, or of other codes.
  """
  arranged, view = view.arranged, dataclasses.replace(view, planes=None)
  folder = os.path.join(workdir, FOLDER, _name(view, source, mirrored))
  storage.make_folder(folder)
  files = [
    os.path.join(folder, f'{start:09d}.npz')
    for start in range(0, len(source), IMAGES)
  ]
  known = set(storage.names(folder))
  missing = [x for x in files if os.path.basename(x) not in known]
  if missing:
    logging.info('%s: coding %d images', source.split, len(source))
  for file in missing[jax.process_index() :: jax.process_count()]:
    start = files.index(file) * IMAGES
    numbers = range(start, min(start + IMAGES, len(source)))
    write_arrays(file, _code(view, source, numbers, mirrored))
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f'codes of {source.split}')
  found = [_read(file) for file in files]
  if not missing:
    _compare(view, source, found[0], mirrored, folder)
  rows = {x: np.concatenate([part[x] for part in found]) for x in found[0]}
  return {**rows, 'view': arranged(rows['view'])}


def _name(view: View, source: data.Source, mirrored: bool) -> str:
  """Returns the name of the folder of codes: a hash of what they depend on."""
  settings = view.model.experiment.data
  about = {
    'weights': view.model.weights,
    'changes': dict(view.model.changes),
    'view': view.name,
    'order': view.order,
    'images': source.fingerprint,
    'side': view.side,
    'resize': settings.resize,
    'mirrored': mirrored,
  }
  text = json.dumps(about, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code(
  view: View, source: data.Source, numbers: range, mirrored: bool
) -> dict[str, np.ndarray]:
  """Codes some images; the mirror image follows each."""
  views, labels = [], []
  for images, found in images_of(view.model, source, numbers, view.side):
    if mirrored:
      both = np.stack([images, images[:, :, ::-1]], axis=1)
      images, found = both.reshape(-1, *images.shape[1:]), np.repeat(found, 2)
    views.append(_narrowed(view.of(images)))
    labels.append(found)
  return {
    'view': np.concatenate(views),
    'label': np.concatenate(labels).astype(np.int32),
  }


def images_of(
  model: TrainedModel, source: data.Source, numbers: range, side: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields images uint8 [b, side, side, 3], their centres, and labels [b]."""
  settings = model.experiment.data
  batches = data.eval_batches(
    cast(data.Source, [source[i] for i in numbers]),
    model.experiment.evaluation.batch_size,
    side,
    resize=settings.resize,
  )
  for batch in batches:
    real = batch['mask']
    yield batch['image'][real], batch['label'][real]


def _narrowed(view: np.ndarray) -> np.ndarray:
  """Stores events in the smallest unsigned type that may hold them."""
  if view.dtype.kind == 'f':
    return view
  return view.astype(np.uint16 if view.max(initial=0) < 2**16 else np.int32)


def _read(file: str) -> dict[str, np.ndarray]:
  try:
    return read_arrays(file)
  except (OSError, ValueError) as error:
    raise InputError(
      f'{file} cannot be read ({error}): remove it, to code its images again'
    ) from error


def _compare(
  view: View,
  source: data.Source,
  found: dict[str, np.ndarray],
  mirrored: bool,
  folder: str,
) -> None:
  """Raises InputError where the first images have other codes now."""
  count = min(_COMPARED, len(source))
  again = _code(view, source, range(count), mirrored)['view']
  kept = found['view'][: len(again)]
  close = np.isclose(kept, again, rtol=1e-3, atol=1e-4)
  if kept.shape != again.shape or close.mean() < 0.999:
    raise InputError(
      f'{folder} holds the codes of another model or of other images: remove it'
    )


class CodedBatches:
  """Batches of the training images of a model, coded when they are due."""

  def __init__(
    self, view: View, pipeline: data.TrainPipeline, names: Sequence[str]
  ):
    self._view, self._pipeline, self._names = view, pipeline, names

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """Returns this process's rows of the batch at `step`: `view`, `label`."""
    return self._coded(self._pipeline.batch(step))

  def iterate(self, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields batch(start_step), batch(start_step + 1), ... without an end."""
    return map(self._coded, self._pipeline.iterate(start_step))

  def _coded(self, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    labels = labels_for(batch['label'], self._names, 'train')
    return {'view': self._view.of(batch['image']), 'label': labels}
