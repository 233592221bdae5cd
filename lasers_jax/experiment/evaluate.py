"""Measures a trained model over a split, and writes what is known of it."""

import os
import time
from typing import NamedTuple

import jax

from lasers_jax import inference
from lasers_jax.core import provenance
from lasers_jax.core.files import as_json, check_folder, local, write_text
from lasers_jax.core.images import save_png
from lasers_jax.data import DataSettings, Source
from lasers_jax.errors import optional
from lasers_jax.evaluation import examples, protocol
from lasers_jax.experiment.figures import reconstruction_figure
from lasers_jax.experiment.model import TrainedModel, load
from lasers_jax.metrics.registry import ALWAYS, Metrics
from lasers_jax.training import workdir
from lasers_jax.training.monitor import read_metrics


class Evaluation(NamedTuple):
  """What was measured, and of what."""

  path: str  # the workdir
  output: str  # the folder of what is written
  model: TrainedModel
  source: Source
  metrics: Metrics
  measured: protocol.Measured
  results: dict  # as in results.json


def evaluate(path: str, output: str | None = None, **options) -> dict:
  """Evaluates a checkpoint of a workdir, and writes all that is known of it.

  Args:
    path, output, options: see `measure`.

  Returns:
    The results, as in results.json.
  """
  evaluation = measure(path, output, **options)
  illustrate(evaluation)
  return evaluation.results


def measure(
  path: str,
  output: str | None = None,
  metrics: Metrics = ALWAYS,
  dump: str | None = None,
  **changes,
) -> Evaluation:
  """Measures a checkpoint of a workdir, and writes results.json.

  Args:
    path: the workdir.
    output: the folder to write to; None is the workdir.
    metrics: what to measure.
    dump: a folder for images and reconstructions as PNG files; None writes
      none.
    changes: see `load`.

  Raises:
    InputError: something that the user can mend.
  """
  path = workdir.locate(path)
  output = local(output or path)
  model = load(path, **changes)
  _, run, mesh, _, variables = model
  check_folder(output, 'name another folder with --output')
  if dump:
    dump = local(dump)
    check_folder(dump, 'name another folder with --dump')
  started = time.time()
  source = run.data.open(run.data.test, path, metrics.minimum_side)
  if 'name' not in (changes.get('data_changes') or {}):
    workdir.check_fingerprints(path, {source.split: source.fingerprint})
  batches = run.data.evaluation_batches(
    source, run.evaluation.batch_size, run.pad_multiple
  )
  measured = protocol.measure(
    run.model, variables, batches, mesh, run.decoding, metrics, dump
  )
  results = protocol.summarize(measured)
  results['protocol'] = {
    **say_protocol(model, metrics),
    **source.fingerprint,
    'seconds': round(time.time() - started, 1),
  }
  if jax.process_index() == 0:
    file = os.path.join(output, 'results.json')
    write_text(file, as_json(results))
  return Evaluation(path, output, model, source, metrics, measured, results)


def illustrate(evaluation: Evaluation) -> None:
  """Writes results.png and report.html; the log says what could not be."""
  _, output, model, source, metrics, measured, _ = evaluation
  _, run, mesh, _, variables = model
  lead = jax.process_index() == 0
  with optional('results.png'):
    images = run.data.first_images(source, run.evaluation.pictures)
    picture = reconstruction_figure(
      run.model, variables, images, mesh, run.decoding
    )
    if lead:
      save_png(os.path.join(output, 'results.png'), picture)
  with optional('report.html'):
    findings = examples.collect(
      run.model, variables, mesh, run.decoding, metrics, measured,
      picker(run.data, source), run.data.side,
    )  # fmt: skip
    if lead:
      text = page(evaluation, findings)
      write_text(os.path.join(output, 'report.html'), text)


def say_protocol(model: TrainedModel, metrics: Metrics) -> dict:
  """What results say of how they were made."""
  config, run, _, step, variables = model
  return {
    **protocol.PROTOCOL,
    **metrics.protocol,
    **run.model.decoder.describe(run.decoding),
    **run.data.describe(run.data.test),
    'step': step,
    'weights': inference.weights_hash(variables),
    'averaged_weights': True,
    'bottleneck': config['bottleneck'],
    'parameters': inference.count_parameters(variables),
    'weights_of_metrics': {
      name: inference.weights_hash(params)
      for name, params in metrics.weights.items()
    },
    'commit': provenance.commit(),
  }


def picker(data: DataSettings, source: Source) -> examples.Pick:
  """Makes a function that gives images by their numbers in a split."""

  def pick(numbers):
    # In a list they are a source of their own.
    chosen = [source[i] for i in numbers]
    return data.first_images(chosen, len(chosen))

  return pick


def page(evaluation: Evaluation, findings: examples.Findings) -> str:
  """Writes the report of an evaluation as HTML."""
  # Imported here: results are there without the packages that draw.
  from lasers_jax.report import document

  path, _, model, _, _, measured, results = evaluation
  origin = document.Origin(
    model.config,
    read_metrics(os.path.join(path, 'metrics.jsonl')),
    provenance.versions(provenance.commit()),
    provenance.command(),
  )
  return document.render(results, measured, findings, origin)
