"""Draws new images from trained autoencoders, and scores them.

  python sample.py --workdir=runs/mnist/vae --priors=pmfs,gmm,kde

Each prior is fitted to the latents of the training split. WORKDIR/samples gets
its state (NAME.npz), a grid of new images (NAME.png) and its scores (NAME.json)
beside those of held-out real images. With several workdirs, joined by commas,
--output=FOLDER gets one table of all: table.md, table.json and pictures.png.
Runs in one process, with all its devices.
"""

import jax
from absl import flags

from lasers_jax.cli import program
from lasers_jax.cli.command_line import Number, Path
from lasers_jax.core.ranges import Seed, Several
from lasers_jax.errors import InputError
from lasers_jax.experiment.generate import sample_all
from lasers_jax.experiment.loading import load
from lasers_jax.metrics import classifier
from lasers_jax.priors import vector
from lasers_jax.report import generation_table


def define_flags() -> None:
  flags.DEFINE_list(
    'priors',
    'pmfs',
    f'Priors to fit: {", ".join(vector.PRIORS)}. Settings follow after colons: '
    'pmfs:k=100.',
  )
  flags.DEFINE(Number(Several), 'n', 10_000, 'Images to draw for each prior.')
  flags.DEFINE(Number(Seed), 'seed', 0, 'Seed of fitting and drawing.')
  flags.DEFINE_string(
    'features',
    classifier.NAME,
    f'Network whose features compare images: {", ".join(classifier.RECIPES)} '
    '(trained on the labels of the data; the first for digits, the second for '
    'images in colour), or a metric of sets such as fd-vgg16.',
  )
  flags.DEFINE(
    Path(), 'output', None, 'Folder of one table of all workdirs, if wanted.'
  )


def main() -> None:
  given = flags.FLAGS
  if not program.WORKDIR.value:
    raise InputError('--workdir=FOLDER is needed')
  if not given.priors:
    raise InputError(f'--priors is empty: {", ".join(vector.PRIORS)}')
  program.set_up_jax()
  if jax.process_count() > 1:
    raise InputError('sample.py runs in one process')
  rows = sample_all(
    [load(x) for x in program.WORKDIR.value.split(',')],
    given.priors,
    given.n,
    given.seed,
    given.features,
    given.output,
  )
  print(generation_table.table(rows), end='')


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main)
