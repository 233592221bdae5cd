"""Draws new images from trained autoencoders, and scores them.

  lasers-jax sample --workdir=runs/mnist/vae --priors=pmfs,gmm,kde

Each prior is fitted to the latents of the training split. WORKDIR/samples gets
its state (NAME.npz), a grid of new images (NAME.png) and its scores (NAME.json)
beside those of held-out real images. With several workdirs, joined by commas,
--output=FOLDER gets one table of all: table.md, table.json and pictures.png.
Runs in one process, with all its devices.

  lasers-jax sample --prior=runs/vq-ar --drawing=guidance=1.5,top_k=100

draws from a trained prior of maps (`lasers-jax prior`) as many images of each
class, scores them, and measures the bits of the test split. Its folder samples/
gets results, pictures and report. With --complete=FILE,FILE it draws what is
not --given of these images instead, for each of --classes, into --output.
"""

import jax
from absl import flags

from lasers_jax.cli import command_line, program
from lasers_jax.cli.command_line import Number, Path
from lasers_jax.core.ranges import Seed, Several
from lasers_jax.errors import InputError
from lasers_jax.experiment.foreign import with_images
from lasers_jax.experiment.generate import sample_all
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.priors.generate import (
  HALVES,
  complete_files,
  sample_prior,
)
from lasers_jax.experiment.priors.model import load_prior
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
  command_line.define_model()
  command_line.define_images()
  flags.DEFINE(Number(Several), 'n', 10_000, 'Images to draw for each prior.')
  flags.DEFINE(Number(Seed), 'seed', 0, 'Seed of fitting and drawing.')
  flags.DEFINE_string(
    'features',
    None,
    f'Network whose features compare images: {", ".join(classifier.RECIPES)} '
    '(trained on the labels of the data; the first for digits, the second for '
    'images in colour), or a metric of sets such as fd-vgg16. If unset: the '
    'first, and with --prior the one that suits the images.',
  )
  flags.DEFINE(
    Path(),
    'output',
    None,
    'Folder of one table of all workdirs, or of what --prior has drawn, if '
    'wanted; or file of completions.',
  )
  command_line.define_prior()
  flags.DEFINE_list(
    'drawing',
    [],
    'Settings by which this prior draws: NAME=VALUE, joined by commas; the '
    'names are those of the section drawing of its config.',
  )
  flags.DEFINE_list('complete', [], 'Images to complete by this prior.')
  flags.DEFINE_enum(
    'given', 'left', list(HALVES), 'Half of these images that is given.'
  )
  flags.DEFINE_list(
    'classes', [], 'Class of each of these images, by name or number.'
  )


def main() -> None:
  given = flags.FLAGS
  if given.prior:
    draw_from_prior(given)
    return
  paths = (given.model or program.WORKDIR.value or '').split(',')
  if not paths[0]:
    raise InputError('--workdir=FOLDER is needed, or --model')
  if not given.priors:
    raise InputError(f'--priors is empty: {", ".join(vector.PRIORS)}')
  program.set_up_jax()
  if jax.process_count() > 1:
    raise InputError('lasers-jax sample runs in one process')
  rows = sample_all(
    [with_images(load(path), given.data, given.side) for path in paths],
    given.priors,
    given.n,
    given.seed,
    given.features or classifier.NAME,
    given.output,
  )
  print(generation_table.table(rows), end='')


def draw_from_prior(given: flags.FlagValues) -> None:
  """Samples a prior of maps, or completes images by it."""
  if program.WORKDIR.value:
    raise InputError('--prior names a workdir itself: leave out --workdir')
  program.set_up_jax()
  if jax.process_count() > 1:
    raise InputError('lasers-jax sample runs in one process')
  prior = load_prior(given.prior).with_words(given.drawing)
  if not given.complete:
    row = sample_prior(prior, given.n, given.seed, given.features, given.output)
    print(generation_table.table([row]), end='')
    return
  if not given.output:
    raise InputError('--complete writes a picture: --output=FILE.png is needed')
  complete_files(
    prior,
    given.complete,
    given.given,
    given.classes,
    given.seed,
    given.output,
  )


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main)
