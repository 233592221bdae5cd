"""Measures a trained model over a whole split.

  lasers-jax evaluate --workdir=runs/photos

Writes results.json, results.png and report.html into the workdir (or --output)
and prints the results on one line.
"""

import jax
from absl import flags

from lasers_jax.bottlenecks import Lasers
from lasers_jax.cli import command_line, program
from lasers_jax.cli.command_line import NamedPaths, Number, Numbers, Path
from lasers_jax.core.ranges import Fraction, Whole, declared
from lasers_jax.decoders import DECODERS
from lasers_jax.diffusion import SOLVERS
from lasers_jax.errors import InputError
from lasers_jax.evaluation import protocol
from lasers_jax.experiment import settings
from lasers_jax.experiment.evaluate import illustrate, measure
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.shipped import own_folder
from lasers_jax.metrics.registry import METRICS, load_metrics


def define_flags() -> None:
  command_line.define_model()
  step = Number(Whole)
  flags.DEFINE(
    step, 'checkpoint', None, 'Step of the checkpoint; the newest if unset.'
  )
  flags.DEFINE_string(
    'data',
    None,
    'Data set to measure on: photos, folder:PATH or a tfds name; that of the '
    'config if unset.',
  )
  flags.DEFINE_string('split', None, 'Split; the test split if unset.')
  flags.DEFINE_bool(
    'whole',
    None,
    'Measure whole images (--whole) or central crops (--nowhole); as in the '
    'config if unset.',
  )
  atoms = Number(declared(Lasers, 'S'))
  flags.DEFINE(
    atoms,
    'S',
    None,
    'Atoms to use for each site, of `lasers`; as in training if unset.',
  )
  define_metrics()
  flags.DEFINE(
    Path(), 'dump', None, 'Folder for all images and reconstructions as PNG.'
  )
  define_sampling()
  images = Number(declared(settings.EvaluationSettings, 'batch_size'))
  flags.DEFINE(
    images,
    'batch_size',
    None,
    'Images at a time; less takes less memory, and results are the same.',
  )
  flags.DEFINE(
    Path(), 'output', None, 'Folder of the results; the workdir if unset.'
  )


def define_sampling() -> None:
  """Defines the flags of a diffusion decoder."""
  flags.DEFINE_enum(
    'solver',
    None,
    list(SOLVERS),
    'Solver of a diffusion decoder; as in the config if unset.',
  )
  sampling = DECODERS['diffusion'].Sampling
  steps = Number(declared(sampling, 'steps'))
  flags.DEFINE(
    steps,
    'sampling_steps',
    None,
    'Sampling steps of a diffusion decoder; as in the config if unset.',
  )
  guidance = Number(declared(sampling, 'guidance'))
  flags.DEFINE(
    guidance,
    'guidance',
    None,
    'Guidance scale of a diffusion decoder, where 1 is none; as in the config '
    'if unset.',
  )
  flags.DEFINE(
    Numbers(Fraction),
    'guidance_interval',
    None,
    'Diffusion times between which guidance is used, as 0.25,1; as in the '
    'config if unset.',
  )


def define_metrics() -> None:
  """Defines the flags of metrics, which a comparison has, too."""
  rows = METRICS.items()
  more = [name for name, row in rows if row.load and not row.always]
  flags.DEFINE_list(
    'metrics',
    [],
    f'Metrics to measure besides PSNR and SSIM: {", ".join(more)}.',
  )
  flags.DEFINE(
    NamedPaths(),
    'metric_weights',
    {},
    'Files of the weights of metrics: fid=FILE,cmmd=FILE.',
  )


def _given(values: dict) -> dict:
  return {k: v for k, v in values.items() if v is not None}


def main() -> None:
  given = flags.FLAGS
  path = given.model or program.WORKDIR.value
  if not path:
    raise InputError('--workdir=FOLDER is needed, or --model')
  program.set_up_jax()
  model = load(path, given.checkpoint)
  model = changed(model, given)
  evaluation = measure(
    model,
    given.data,
    given.split,
    load_metrics(given.metrics, given.metric_weights),
    own_folder(model.folder, given.output),
    given.dump,
  )
  if jax.process_index() == 0:
    print(protocol.one_line(evaluation.results), flush=True)
  illustrate(evaluation)


def changed(model: TrainedModel, given: flags.FlagValues) -> TrainedModel:
  """Returns a model with the changes that flags name."""
  evaluation = _given({'batch_size': given.batch_size})
  data = _given({'whole': given.whole})
  if evaluation or data:
    model = model.with_config(data=data, evaluation=evaluation)
  sampling = {
    'solver': given.solver,
    'steps': given.sampling_steps,
    'guidance': given.guidance,
    'guidance_interval': given.guidance_interval,
  }
  model = model.with_(**_given({'S': given.S}))
  return model.with_sampling(**_given(sampling))


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main)
