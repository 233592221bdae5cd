"""Trains bottlenecks at equal bits, and sets their results side by side."""

import dataclasses
import json
import logging
import math
import os
from typing import Any

import jax
import numpy as np

from lasers_jax import inference
from lasers_jax.bottlenecks import BOTTLENECKS
from lasers_jax.bottlenecks.rates import fields_at
from lasers_jax.core.arrays import read_arrays, write_arrays
from lasers_jax.core.images import save_png
from lasers_jax.core.storage import (
  as_json,
  exists,
  make_folder,
  read_bytes,
  write_text,
)
from lasers_jax.core.trees import merge
from lasers_jax.errors import InputError, TrainingError, optional
from lasers_jax.evaluation.baselines import restored_simply
from lasers_jax.evaluation.degraded import damaged
from lasers_jax.experiment import presets, settings
from lasers_jax.experiment.evaluate import evaluate
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.loop import train_and_evaluate
from lasers_jax.metrics.registry import ALWAYS, Metrics
from lasers_jax.report import comparison, restoration_table
from lasers_jax.training import workdir

RECONSTRUCTIONS = 'pictures.npz'  # in the workdir of a run


@dataclasses.dataclass
class Entry:
  """A run of the comparison, and its results.

  Attributes:
    name: the name of the bottleneck.
    rate: the requested bits per pixel; None for a continuous code.
    path: the workdir of the run.
    config: of the run; empty where no settings meet the rate.
    fields: the settings of the bottleneck that were solved for.
    error: the reason why there are no results; None where there is none.
    results: as in results.json.
  """

  name: str
  rate: float | None
  path: str
  config: dict = dataclasses.field(default_factory=dict)
  fields: dict = dataclasses.field(default_factory=dict)
  error: str | None = None
  results: dict | None = None


def compare(
  config: dict,
  names: list[str],
  rates: list[float],
  path: str,
  metrics: Metrics = ALWAYS,
):
  """Trains and measures every unfinished run, and writes the report.

  Args:
    config: nested dictionaries; `bottleneck` and `loss.weights` are replaced.
    names: of bottlenecks, as in `presets.replace`.
    rates: bits per pixel.
    path: the folder of all runs.
    metrics: the metrics to measure.

  Returns:
    The entries, or None where the run was asked to stop.
  """
  entries = plan(config, names, rates, path)
  for entry in [x for x in entries if x.config and not is_finished(x, metrics)]:
    logging.info('--- %s', os.path.basename(entry.path))
    # They are the same for all.
    baselines = not any('baselines' in (x.results or {}) for x in entries)
    if not train_and_measure(entry, metrics, baselines):
      return None
    jax.clear_caches()
    write_report(entries, path)
  write_report(entries, path)
  return entries


def plan(
  config: dict, names: list[str], rates: list[float], path: str
) -> list[Entry]:
  """Lists the runs, with the settings that meet each rate.

  Raises:
    InputError: a name is not known, or a part of the config cannot be used.
  """
  entries = []
  for name in names:
    base = presets.replace(config, name)
    run = settings.from_config(base)
    if run.bits_per_pixel is None:
      folder = os.path.join(path, f'{name}-continuous')
      entries.append(Entry(name, None, folder, base))
    for rate in rates:
      entry = Entry(name, rate, os.path.join(path, f'{name}-{rate:g}'))
      entries.append(entry)
      try:
        entry.fields = _fields_at(run, base['bottleneck'], rate)
      except ValueError as error:
        entry.error = f'no settings: {error}'
        continue
      entry.config = merge(base, {'bottleneck': entry.fields})
      settings.from_config(entry.config)
  return entries


def _fields_at(
  run: settings.Experiment, section: dict, rate: float
) -> dict[str, Any]:
  """Solves for the fields of a bottleneck with which a pixel costs a rate."""
  model, side = run.model, run.data.side
  sites = math.prod(model.coded_sites(side, side))
  bits, width = rate * model.stride**2, model.bottleneck.D
  return fields_at(BOTTLENECKS, section, bits, width, sites)


def is_finished(entry: Entry, metrics: Metrics) -> bool:
  """Returns whether an entry is measured at its last step; reads its results.

  Raises:
    InputError: they are of another config.
  """
  if not exists(os.path.join(entry.path, RECONSTRUCTIONS)):
    return False  # They are written last.
  stored = settings.with_defaults(workdir.load_config(entry.path))
  data, lists = settings.from_config(entry.config).data, {}
  if stored['data'].get('name') != data.name:
    lists = data.fingerprints(entry.path)  # The same images may have moved.
  asked = workdir.Run(entry.config, settings.with_defaults, lists)
  workdir.check_config(entry.path, asked)
  try:
    path = os.path.join(entry.path, 'results.json')
    results = json.loads(read_bytes(path))
    step = results['protocol']['step']
  except (OSError, ValueError, KeyError, TypeError):
    return False  # Damaged: measured again.
  if step != entry.config['steps']:
    return False
  if not metrics.protocol.keys() <= results.keys():
    return False
  entry.results = results
  return True


def train_and_measure(
  entry: Entry, metrics: Metrics, baselines: bool = True
) -> bool:
  """Trains and measures an entry; returns False where it was asked to stop.

  An error is recorded in the entry, and the other runs continue.

  Args:
    baselines: see `evaluate`.
  """
  try:
    state = train_and_evaluate(entry.config, entry.path)
    if int(state.step) < entry.config['steps']:
      return False
    entry.results = evaluate(
      entry.path, metrics=metrics, output=entry.path, baselines=baselines
    )
  except Exception as error:  # of any type: the other runs continue
    known = isinstance(error, InputError | TrainingError)
    entry.error = ' '.join(f'{type(error).__name__}: {error}'.split())
    name = os.path.basename(entry.path)
    logging.error('%s failed: %s', name, entry.error, exc_info=not known)
    return True
  with optional(f'reconstructions of {os.path.basename(entry.path)}'):
    images = reconstruct(entry.path)
    if jax.process_index() == 0:
      write_reconstructions(entry.path, images)
  return True


def reconstruct(path: str) -> list[np.ndarray]:
  """Reconstructs the first test images by the model of a workdir."""
  model = load(path)
  inputs = first_images(model.experiment, path)
  if model.experiment.degradation:
    numbers = range(len(inputs))
    inputs = damaged(model.experiment.degradation, inputs, numbers)
  return inference.reconstruct(
    model.module, model.variables, inputs, model.mesh, model.decoding
  )


def first_images(
  experiment: settings.Experiment, path: str
) -> list[np.ndarray]:
  """Returns the first test images as evaluation sees them: uint8 [h, w, 3]."""
  source = experiment.data.open(experiment.data.test, path)
  return experiment.data.first_images(source, experiment.evaluation.pictures)


def write_report(entries: list[Entry], path: str) -> None:
  """Writes the table, the curves and the figure of the finished runs."""
  if jax.process_index() == 0:
    write_table(entries, path)
  with optional('pictures.png'):
    write_figure(entries, path)


def write_table(entries: list[Entry], path: str) -> None:
  """Writes the table and the curves."""
  make_folder(path)
  rows = [
    {
      'bottleneck': entry.name,
      'asked_bits_per_pixel': entry.rate,
      'settings': entry.fields,
      'error': entry.error,
      'results': entry.results,
    }
    for entry in entries
    if entry.results or entry.error
  ]
  write_text(os.path.join(path, 'table.json'), as_json(rows))
  named = {os.path.basename(x.path): x.results for x in entries if x.results}
  text = comparison.table(rows) + restoration_table.markdown(named)
  write_text(os.path.join(path, 'table.md'), text)
  with optional('curves.png'):
    comparison.plot(rows, os.path.join(path, 'curves.png'))


def write_figure(entries: list[Entry], path: str) -> None:
  """Draws the reconstructions of the same images by all finished runs."""
  done = [
    entry
    for entry in entries
    if entry.results and exists(os.path.join(entry.path, RECONSTRUCTIONS))
  ]
  if not done:
    return
  # All processes open data together.
  experiment, first = settings.from_config(done[0].config), done[0].path
  images, degradation = first_images(experiment, first), experiment.degradation
  if jax.process_index() == 0:
    rows = {
      os.path.basename(x.path): read_reconstructions(x.path) for x in done
    }
    if degradation:
      rows = {**restored_simply(degradation, images), **rows}
    figure = comparison.side_by_side(list(rows), list(rows.values()), images)
    save_png(os.path.join(path, 'pictures.png'), figure)


def write_reconstructions(path: str, images: list[np.ndarray]) -> None:
  """Writes the reconstructions of a run into its workdir."""
  arrays = {f'arr_{i}': image for i, image in enumerate(images)}
  write_arrays(os.path.join(path, RECONSTRUCTIONS), arrays)


def read_reconstructions(path: str) -> list[np.ndarray]:
  """Reads the reconstructions that a run has written."""
  arrays = read_arrays(os.path.join(path, RECONSTRUCTIONS))
  return [arrays[f'arr_{i}'] for i in range(len(arrays))]
