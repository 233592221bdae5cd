"""Measures a trained model over a whole split.

  python evaluate.py --workdir=runs/photos

Writes results.json, results.png and report.html into the workdir (or --output)
and prints one line.
"""

import jax
from absl import flags

from lasers_jax.bottlenecks import Lasers
from lasers_jax.cli import program
from lasers_jax.cli.command_line import NamedPaths, Number, Numbers, Path
from lasers_jax.core.ranges import Fraction, Whole, declared
from lasers_jax.decoders import DECODERS
from lasers_jax.errors import InputError
from lasers_jax.evaluation import protocol
from lasers_jax.experiment import settings
from lasers_jax.experiment.evaluate import illustrate, measure
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.metrics.registry import METRICS, load_metrics


def define_flags() -> None:
  step = Number(Whole)
  flags.DEFINE(step, 'checkpoint', None, 'Its step; the newest if unset.')
  flags.DEFINE_string('data', None, 'Other: photos, folder:PATH, a tfds name.')
  flags.DEFINE_string('split', None, 'Split; by default the test one.')
  flags.DEFINE_bool('whole', None, 'Whole pictures, not central crops.')
  atoms = Number(declared(Lasers, 'S'))
  flags.DEFINE(atoms, 'S', None, 'Atoms for a site, if not as trained.')
  define_metrics()
  flags.DEFINE(Path(), 'dump', None, 'Folder for PNG files of all images.')
  flags.DEFINE_string('solver', None, 'Of a diffusion decoder.')
  sampling = DECODERS['diffusion'].Sampling
  steps = Number(declared(sampling, 'steps'))
  flags.DEFINE(steps, 'sampling_steps', None, 'Of a diffusion decoder.')
  guidance = Number(declared(sampling, 'guidance'))
  flags.DEFINE(guidance, 'guidance', None, 'Of a diffusion decoder.')
  flags.DEFINE(
    Numbers(Fraction),
    'guidance_interval',
    None,
    'Times from and to which it guides: 0,1.',
  )
  images = Number(declared(settings.EvaluationSettings, 'batch_size'))
  flags.DEFINE(images, 'batch_size', None, 'Images at a time.')
  flags.DEFINE(Path(), 'output', None, 'Folder; the workdir if unset.')


def define_metrics() -> None:
  """Defines those flags that a comparison has, too."""
  more = ', '.join(name for name, row in METRICS.items() if not row.always)
  flags.DEFINE_list('metrics', [], f'Besides PSNR and SSIM: {more}.')
  flags.DEFINE(
    NamedPaths(), 'metric_weights', {}, 'Files of weights: fid=FILE,cmmd=FILE.'
  )


def _given(values: dict) -> dict:
  return {k: v for k, v in values.items() if v is not None}


def main() -> None:
  given = flags.FLAGS
  if not program.WORKDIR.value:
    raise InputError('--workdir=FOLDER is needed')
  program.set_up_jax()
  model = load(program.WORKDIR.value, given.checkpoint)
  model = changed(model, given)
  evaluation = measure(
    model,
    given.data,
    given.split,
    load_metrics(given.metrics, given.metric_weights),
    given.output or model.path,
    given.dump,
  )
  if jax.process_index() == 0:
    print(protocol.one_line(evaluation.results), flush=True)
  illustrate(evaluation)


def changed(model: TrainedModel, given: flags.FlagValues) -> TrainedModel:
  """Returns a model that differs from training as flags say."""
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
