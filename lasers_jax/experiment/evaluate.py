"""Measures a trained model over a split, and writes results and a report."""

import dataclasses
import itertools
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lasers_jax import inference
from lasers_jax.core import provenance
from lasers_jax.core.images import save_png
from lasers_jax.core.storage import (
  absolute,
  as_json,
  check_folder,
  write_text,
)
from lasers_jax.data import DataSettings, Source, as_source
from lasers_jax.degradations import PROTOCOLS
from lasers_jax.errors import optional
from lasers_jax.evaluation import draws, examples, protocol
from lasers_jax.evaluation.baselines import measure_baselines
from lasers_jax.experiment.figures import reconstruction_figure
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.small_images import senders
from lasers_jax.metrics.registry import ALWAYS, Metrics, known, load_metrics
from lasers_jax.training import workdir
from lasers_jax.training.metric_lines import read_metrics


class Evaluation(NamedTuple):
  """A finished measurement: its inputs and its results."""

  output: str | None  # the folder to write into
  model: TrainedModel
  source: Source
  metrics: Metrics
  measured: protocol.Measured
  results: dict  # as in results.json


def evaluate(
  model: TrainedModel | str,
  data: Any = None,
  split: str | None = None,
  metrics: Sequence[str] | Metrics = (),
  output: str | None = None,
  baselines: bool = True,
) -> dict[str, Any]:
  """Measures the quality and the bits of a model over a whole split.

  Args:
    model: a trained model, or its path, as `load` takes it.
    data: images, any object with `len` and `[i]`; or the name of a data set, as
      in `data.name` of a config. None takes the data set of the config.
    split: the name of the split; None is the test split.
    metrics: names of metrics besides PSNR and SSIM; see `metrics.registry`.
    output: a folder for results.json, results.png and report.html; None writes
      nothing.
    baselines: whether to measure restorations without a model, too.

  Returns:
    The results, as in results.json, with their protocol.

  Raises:
    InputError: a user error.
  """
  if not isinstance(model, TrainedModel):
    model = load(model)
  if not isinstance(metrics, Metrics):
    metrics = load_metrics(list(metrics))
  evaluation = measure(model, data, split, metrics, output, None, baselines)
  illustrate(evaluation)
  return evaluation.results


def measure(
  model: TrainedModel,
  data: Any = None,
  split: str | None = None,
  metrics: Metrics = ALWAYS,
  output: str | None = None,
  dump: str | None = None,
  baselines: bool = True,
) -> Evaluation:
  """Measures a model over a split, and writes results.json.

  Args:
    model, data, split, output: see `evaluate`.
    metrics: the metrics to measure.
    dump: a folder for images and reconstructions as PNG files; None writes
      none.
    baselines: see `evaluate`.

  Raises:
    InputError: a user error.
  """
  output, dump = (path and absolute(path) for path in (output, dump))
  for path, flag in (output, 'output'), (dump, 'dump'):
    if path:
      check_folder(path, f'name another folder with --{flag}')
  started = time.time()
  model, source = open_images(model, data, split, metrics.minimum_side)
  experiment = model.experiment

  def batches():
    return experiment.data.evaluation_batches(
      source, experiment.evaluation.batch_size, experiment.pad_multiple
    )

  measured = protocol.measure(
    model.module,
    model.variables,
    batches(),
    model.mesh,
    model.decoding,
    metrics,
    dump,
    experiment.degradation,
  )
  results = protocol.summarize(measured)
  if experiment.degradation:
    results |= of_restoration(model, source, batches(), metrics, baselines)
  results['protocol'] = {
    **describe_protocol(model, metrics),
    **source.fingerprint,
    'seconds': round(time.time() - started, 1),
  }
  if output and jax.process_index() == 0:
    write_text(os.path.join(output, 'results.json'), as_json(results))
  return Evaluation(output, model, source, metrics, measured, results)


def of_restoration(
  model: TrainedModel,
  source: Source,
  batches: Iterable[dict[str, np.ndarray]],
  metrics: Metrics,
  baselines: bool,
) -> dict[str, Any]:
  """Returns results of methods without a model, and of several draws."""
  experiment, results = model.experiment, {}
  assert experiment.degradation
  if baselines:
    results['baselines'] = measure_baselines(
      experiment.degradation,
      batches,
      model.mesh,
      metrics,
      senders(
        experiment.degradation, experiment.data, experiment.bits_per_pixel
      ),
    )
  if model.module.decoder.is_stochastic:
    images = experiment.data.first_images(source, draws.IMAGES)
    # Of one size, and with the numbers that they have in the split.
    alike = itertools.takewhile(lambda x: x.shape == images[0].shape, images)
    results['draws'] = draws.measure_draws(
      model.module,
      model.variables,
      model.mesh,
      model.decoding,
      metrics,
      experiment.degradation,
      np.stack(list(alike)),
    )
  return results


def open_images(
  model: TrainedModel, data: Any, split: str | None, minimum_side: int
) -> tuple[TrainedModel, Source]:
  """Opens the images to measure; returns a model whose config names them."""
  settings = model.experiment.data
  split = split or settings.test
  if data is None or isinstance(data, str):
    changes = {} if data is None else {'name': data, 'options': {}}
    model = model.with_config(data={**changes, 'test': split})
    source = model.open_split(split, minimum_side)
    if data is None:
      known = {source.split: source.fingerprint}
      workdir.check_fingerprints(model.path, known)
    return model, source
  source = as_source(data, split)
  settings = dataclasses.replace(settings, name=source.name, test=split)
  experiment = dataclasses.replace(model.experiment, data=settings)
  return dataclasses.replace(model, experiment=experiment), source


def illustrate(evaluation: Evaluation) -> None:
  """Writes results.png and report.html; logs a warning for one that fails."""
  output, model, source, metrics, measured, _ = evaluation
  if not output:
    return
  data, lead = model.experiment.data, jax.process_index() == 0
  parts = model.module, model.variables
  with optional('results.png'):
    count = model.experiment.evaluation.pictures
    images = data.first_images(source, count)
    degradation = model.experiment.degradation
    figure = reconstruction_figure(
      *parts, images, model.mesh, model.decoding, degradation
    )
    if lead:
      save_png(os.path.join(output, 'results.png'), figure)
  with optional('report.html'):
    findings = examples.collect(
      *parts, model.mesh, model.decoding, metrics, measured,
      picker(data, source), data.side, model.experiment.degradation,
    )  # fmt: skip
    if lead:
      text = page(evaluation, findings)
      write_text(os.path.join(output, 'report.html'), text)


def describe_protocol(model: TrainedModel, metrics: Metrics) -> dict:
  """Returns the part of the results that says how they were measured."""
  data, restoring = model.experiment.data, {}
  degradation = model.experiment.degradation
  if degradation:
    rows = known(degradation.measures())
    restoring = {name: row.protocol for name, row in rows.items()}
    restoring['degradation'] = model.config['degradation']
    restoring['restoration'] = PROTOCOLS[degradation.protocol]
  return {
    **protocol.PROTOCOL,
    **metrics.protocol,
    **restoring,
    **model.module.decoder.describe(model.decoding),
    **data.describe(data.test),
    'step': model.step,
    'weights': model.weights,
    'averaged_weights': True,
    'bottleneck': model.config['bottleneck'],
    'parameters': inference.count_parameters(model.variables),
    'weights_of_metrics': {
      name: inference.weights_hash(params)
      for name, params in metrics.weights.items()
    },
    'commit': provenance.commit(),
  }


def picker(data: DataSettings, source: Source) -> examples.Pick:
  """Returns a function that reads images by their numbers in a split."""

  def pick(numbers):
    # A list of images is a source, too.
    chosen = [source[i] for i in numbers]
    return data.first_images(chosen, len(chosen))

  return pick


def page(evaluation: Evaluation, findings: examples.Findings) -> str:
  """Returns the report of an evaluation as HTML."""
  # Imported here: results do not need the packages that draw.
  from lasers_jax.report import document

  model = evaluation.model
  origin = document.Origin(
    model.config,
    read_metrics(model.folder),
    provenance.versions(evaluation.results['protocol']['commit']),
    provenance.command(),
  )
  return document.render(
    evaluation.results, evaluation.measured, findings, origin
  )
