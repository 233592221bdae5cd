"""Trains bottlenecks at equal bits, and sets their results side by side.

  lasers-jax compare --config=cifar10 --workdir=runs/comparison \\
    --bottlenecks=lasers,vq,fsq,none --bits_per_pixel=0.5625,2

Networks, data, steps, seed and optimizer are those of the config. For each
bottleneck, the settings that cost the requested bits are solved for. Continuous
bottlenecks are trained once, as they are. A name such as residual-simvq makes
copies of another bottleneck than vq, and vq+gan adds a part of
lasers_jax/experiment/presets/decoders.py.

--model=diffusers:/my/vae, or of any other model, compares codes of its latents:
the networks are its own, and stay as they are. --config=recode has what else
this asks for.

Each run has a folder in the workdir. The same command resumes, skips what is
finished, and writes table.md, table.json, curves.png and pictures.png (the
reconstructions).
"""

import os

import jax
from absl import flags

from lasers_jax.bottlenecks import BOTTLENECKS
from lasers_jax.cli import command_line, evaluate, program
from lasers_jax.cli.command_line import Numbers
from lasers_jax.core.ranges import Positive
from lasers_jax.core.storage import check_folder, read_text
from lasers_jax.errors import InputError
from lasers_jax.experiment.compare import compare
from lasers_jax.experiment.loading import NAMES
from lasers_jax.metrics.registry import load_metrics
from lasers_jax.training import workdir


def define_flags() -> None:
  names = ','.join(BOTTLENECKS)
  command_line.define_config()
  flags.DEFINE_list(
    'bottlenecks', names, 'Bottlenecks to compare; all if unset.'
  )
  flags.DEFINE(
    Numbers(Positive),
    'bits_per_pixel',
    '0.5625,2',
    'Rates to compare at, joined by commas.',
  )
  flags.DEFINE(
    command_line.Model(),
    'model',
    None,
    'Trained model, or a tokenizer of another project, whose networks all runs '
    'have, frozen; those of the config if unset.',
  )
  evaluate.define_metrics()
  for name in ('metrics', 'metric_weights'):
    flags.declare_key_flag(name)


def main() -> int:
  given = flags.FLAGS
  if not given.config or not program.WORKDIR.value:
    raise InputError('--config=FILE and --workdir=FOLDER are needed')
  for name in 'bottlenecks', 'bits_per_pixel':
    if not getattr(given, name):
      raise InputError(f'--{name} is empty')
  program.set_up_jax(saves=True)
  path = workdir.locate(program.WORKDIR.value)
  check_folder(path, 'choose another --workdir')
  metrics = load_metrics(given.metrics, given.metric_weights)
  config = given.config.to_dict()
  if given.model:
    source = NAMES.get(given.model, given.model)
    config['network'] = {'pretrained': source, 'frozen': True}
  done = compare(
    config,
    given.bottlenecks,
    given.bits_per_pixel,
    path,
    metrics,
  )
  if done is None:
    return program.STOPPED
  if jax.process_index() == 0:
    print(read_text(os.path.join(path, 'table.md')), end='')
  return 0


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, resumes=True)
