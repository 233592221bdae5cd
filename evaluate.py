"""Measures a trained model over a whole split.

  python evaluate.py --workdir=runs/photos

Writes results.json, results.png and report.html into the workdir (or --output)
and prints one line.
"""

from lasers_jax import signals

if __name__ == '__main__':
  signals.end_without_traceback()

import dataclasses
import math
import os
import shlex
import sys
import time
from typing import Any, NamedTuple

import jax
from absl import flags
from jax.sharding import Mesh

from lasers_jax import scripts, settings
from lasers_jax.bottlenecks import Lasers
from lasers_jax.command_line import Number, Numbers, Path
from lasers_jax.data import DataSettings, Source
from lasers_jax.errors import InputError, optional
from lasers_jax.evaluation import examples, pictures, protocol
from lasers_jax.evaluation.measures import (
  MEASURES,
  NOTHING_MORE,
  Measures,
  load_measures,
)
from lasers_jax.evaluation.metrics import SSIM_WINDOW
from lasers_jax.evaluation.refinement import SamplingSettings, say_decoding
from lasers_jax.files import as_json
from lasers_jax.ranges import Share, Whole, declared
from lasers_jax.training import sharding, workdir
from lasers_jax.training.adversarial import make_adversary
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.monitor import read_metrics
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.state import (
  TrainState,
  evaluation_variables,
  state_shapes,
)


class Model(NamedTuple):
  """A trained model, and how it is to be measured."""

  config: dict
  run: settings.Settings
  mesh: Mesh
  step: int
  variables: Any  # params and codebook


class Evaluation(NamedTuple):
  """What was measured, and of what."""

  path: str  # the workdir
  output: str  # the folder of what is written
  model: Model
  source: Source
  measures: Measures
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
  measures: Measures = NOTHING_MORE,
  dump: str | None = None,
  **changes,
) -> Evaluation:
  """Measures a checkpoint of a workdir, and writes results.json.

  Args:
    path: the workdir.
    output: the folder to write to; None is the workdir.
    measures: what to measure besides PSNR and SSIM.
    dump: a folder for images and copies as PNG files; None writes none.
    changes: see `load`.

  Raises:
    InputError: something that the user can mend.
  """
  path = workdir.locate(path)
  output = workdir.local(output or path)
  model = load(path, **changes)
  _, run, mesh, _, variables = model
  workdir.check_folder(output, 'name another folder with --output')
  if dump:
    dump = workdir.local(dump)
    workdir.check_folder(dump, 'name another folder with --dump')
  started = time.time()
  source = run.data.open(run.data.test, path, SSIM_WINDOW)
  if 'name' not in (changes.get('data_changes') or {}):
    workdir.check_pictures(path, {source.split: source.fingerprint})
  batches = run.data.evaluation_batches(
    source, run.evaluation.batch_size, run.multiple
  )
  measured = protocol.measure(
    run.model, variables, batches, mesh, run.decoding, measures, dump
  )
  results = protocol.summarize(measured)
  results['protocol'] = {
    **say_protocol(model, measures),
    **source.fingerprint,
    'seconds': round(time.time() - started, 1),
  }
  if jax.process_index() == 0:
    file = os.path.join(output, 'results.json')
    workdir.write_text(file, as_json(results))
  return Evaluation(path, output, model, source, measures, measured, results)


def illustrate(evaluation: Evaluation) -> None:
  """Writes results.png and report.html; the log says what could not be."""
  _, output, model, source, measures, measured, _ = evaluation
  _, run, mesh, _, variables = model
  lead = jax.process_index() == 0
  with optional('results.png'):
    images = run.data.first_images(source, run.evaluation.pictures)
    picture = protocol.picture(run.model, variables, images, mesh, run.decoding)
    if lead:
      pictures.save_png(os.path.join(output, 'results.png'), picture)
  with optional('report.html'):
    findings = examples.collect(
      run.model, variables, mesh, run.decoding, measures, measured,
      picker(run.data, source), run.data.side,
    )  # fmt: skip
    if lead:
      text = page(evaluation, findings)
      workdir.write_text(os.path.join(output, 'report.html'), text)


def say_protocol(model: Model, measures: Measures) -> dict:
  """What results say of how they were made."""
  config, run, _, step, variables = model
  return {
    **protocol.PROTOCOL,
    **measures.protocol,
    **say_decoding(run.decoding),
    **run.data.describe(run.data.test),
    'step': step,
    'weights': protocol.weights_hash(variables),
    'averaged_weights': True,
    'bottleneck': config['bottleneck'],
    'parameters': protocol.count_parameters(variables),
    'weights_of_measures': {
      name: protocol.weights_hash(network.params)
      for name, network in {**measures.distances, **measures.scores}.items()
    },
    'commit': scripts.commit(),
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
  # Here, since a result is there without the packages that draw.
  from lasers_jax.evaluation import report

  path, _, model, _, _, measured, results = evaluation
  origin = report.Origin(
    model.config,
    read_metrics(os.path.join(path, 'metrics.jsonl')),
    report.versions(scripts.commit()),
    shlex.join(['python', *sys.argv]),
  )
  return report.render(results, measured, findings, origin)


def load(
  path: str,
  step: int | None = None,
  data_changes: dict | None = None,
  bottleneck_changes: dict | None = None,
  sampling_changes: dict | None = None,
  batch_size: int | None = None,
) -> Model:
  """Reads a checkpoint of a workdir.

  Args:
    path: the workdir.
    step: the checkpoint; None takes the newest that is whole.
    data_changes, bottleneck_changes, sampling_changes: keys of these sections
      of the config that are to differ from training.
    batch_size: images at a time; None takes that of the config.

  Raises:
    InputError: something that the user can mend.
  """
  path = workdir.locate(path)
  config = workdir.load_config(path)
  trained = settings.from_config(config)
  config['data'].update(data_changes or {})
  config['bottleneck'].update(bottleneck_changes or {})
  if sampling_changes:
    config['sampling'] = {**config.get('sampling', {}), **sampling_changes}
  run = settings.from_config(config)
  if batch_size:
    changed = dataclasses.replace(run.evaluation, batch_size=batch_size)
    run = dataclasses.replace(run, evaluation=changed)
  devices = math.gcd(run.evaluation.batch_size, jax.device_count())
  mesh = sharding.make_mesh(data=devices)
  state = restore(trained, path, step, mesh)
  variables = evaluation_variables(state)
  return Model(config, run, mesh, int(state.step), variables)


def restore(
  run: settings.Settings, path: str, step: int | None, mesh
) -> TrainState:
  """Reads a checkpoint of a workdir to every device of a mesh."""
  optimizer = make_optimizer(run.optimizer, run.steps)
  adversary = run.discriminator and make_adversary(run.discriminator)
  shapes = state_shapes(run.model, optimizer, run.data.side, adversary)
  places = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
  target = sharding.with_shardings(shapes, places)
  with Checkpoints(path, read_only=True) as checkpoints:
    state = checkpoints.restore(target, step)
  if state is None:
    raise InputError(f'{path} has no checkpoint yet')
  return state


def define_flags() -> None:
  flags.DEFINE(Number(Whole), 'step', None, 'Checkpoint; the newest if unset.')
  flags.DEFINE_string('data', None, 'Other: photos, a tfds name, folder:PATH.')
  flags.DEFINE_string('split', None, 'Split; by default the test one.')
  flags.DEFINE_bool('whole', None, 'Whole pictures, not central crops.')
  atoms = Number(declared(Lasers, 'S'))
  flags.DEFINE(atoms, 'S', None, 'Atoms for a site, if not as trained.')
  define_measures()
  flags.DEFINE(Path(), 'dump', None, 'Folder for PNG files of all images.')
  flags.DEFINE_string('sampler', None, 'Of a diffusion decoder.')
  steps = Number(declared(SamplingSettings, 'steps'))
  flags.DEFINE(steps, 'sampling_steps', None, 'Of a diffusion decoder.')
  guidance = Number(declared(SamplingSettings, 'guidance'))
  flags.DEFINE(guidance, 'guidance', None, 'Of a diffusion decoder.')
  flags.DEFINE(
    Numbers(Share), 'interval', None, 'Times from and to which it guides: 0,1.'
  )
  images = Number(declared(settings.EvaluationSettings, 'batch_size'))
  flags.DEFINE(images, 'batch_size', None, 'Images at a time.')
  flags.DEFINE(Path(), 'output', None, 'Folder; the workdir if unset.')


def define_measures() -> None:
  """Those flags that a comparison has, too."""
  flags.DEFINE_list(
    'measures', [], f'Besides PSNR and SSIM: {", ".join(MEASURES)}.'
  )
  flags.DEFINE(Path(), 'inception', None, 'File of weights, for fid.')
  flags.DEFINE(Path(), 'clip', None, 'File of weights, for cmmd.')


def _given(values: dict) -> dict:
  return {k: v for k, v in values.items() if v is not None}


def main() -> None:
  given = flags.FLAGS
  if not scripts.WORKDIR.value:
    raise InputError('--workdir=FOLDER is needed')
  scripts.set_up_jax()
  data_changes = {
    'name': given.data,
    'held_out': {} if given.data else None,
    'test': given.split,
    'whole': given.whole,
  }
  sampling_changes = {
    'sampler': given.sampler,
    'steps': given.sampling_steps,
    'guidance': given.guidance,
    'interval': given.interval,
  }
  evaluation = measure(
    scripts.WORKDIR.value,
    given.output,
    load_measures(given.measures, given.inception, given.clip),
    given.dump,
    step=given.step,
    data_changes=_given(data_changes),
    bottleneck_changes=_given({'S': given.S}),
    sampling_changes=_given(sampling_changes),
    batch_size=given.batch_size,
  )
  if jax.process_index() == 0:
    print(protocol.one_line(evaluation.results), flush=True)
  illustrate(evaluation)


if __name__ == '__main__':
  define_flags()
  scripts.run(main)
