"""Images to small files and back, by a trained model.

  python codec.py encode --model=runs/photos pictures/*.png files/
  python codec.py decode --model=runs/photos files/*.lz copies/
  python codec.py info files/*.lz
  python codec.py curve --model=runs/photos --S=1,2,3 --coefficient_bits=4,6 \
    pictures/*.png

The model is a workdir whose code is discrete. How probable its codes are is
counted over images of the training split when it first encodes, and kept beside
it, in MODEL/codec.npz: a decoder needs that file, too. A model with `lasers`
may encode with fewer atoms and other coefficients than it was trained with:
--S, --coefficient_bits, --levels and --pursuit; with --residual_norm=0.5, say,
and coefficients rounded in the pursuit, each site takes as many atoms as it
needs. One with `lista` has --coefficient_bits and --levels, one with `scq`
--coefficient_bits, and one with `entropy` may round more coarsely:
--quantizer_step. How probable codes are can be told from those around them
(--context): smaller files, more time. Each choice has a file of its own. Images
may have any size. Each is coded by itself, and written whole or not at all, so
that several processes may work at once.
"""

import os

from absl import flags

from lasers_jax.bottlenecks import Entropy, Lasers
from lasers_jax.cli import program
from lasers_jax.cli.command_line import Numbers, Path
from lasers_jax.codec.model import LEVELS
from lasers_jax.core.ranges import declared
from lasers_jax.errors import InputError
from lasers_jax.experiment.codec_files import (
  decode_files,
  draw_curve,
  encode_files,
  say,
)
from lasers_jax.experiment.codecs import choices_of
from lasers_jax.experiment.loading import load
from lasers_jax.metrics.registry import load_metrics


def main(words: list[str]) -> None:
  given = flags.FLAGS
  program.set_up_jax()
  command, *files = words or ['']
  wanted = {'info': 1, 'curve': 1, 'encode': 2, 'decode': 2}
  if len(files) < wanted.get(command, len(files) + 1):
    raise InputError(
      'python codec.py encode|decode --model=WORKDIR FILE ... FOLDER, '
      'python codec.py curve --model=WORKDIR FILE ... or '
      'python codec.py info FILE ...'
    )
  if command == 'info':
    say(files)
    return
  if not given.model:
    raise InputError('--model=WORKDIR is needed')
  fields = {
    'S': given.S,
    'coefficient_bits': given.coefficient_bits,
    'residual_norm': given.residual_norm,
    'step': given.quantizer_step,
    'pursuit': [given.pursuit],
  }
  choices = choices_of(fields, given.levels, given.context)
  model = load(given.model)
  if command == 'decode':
    decode_files(model, files[:-1], files[-1])
  elif command == 'encode':
    if len(choices) > 1:
      raise InputError(
        'encode takes one --S, --coefficient_bits, --residual_norm and '
        '--quantizer_step'
      )
    encode_files(model, files[:-1], files[-1], choices[0])
  else:
    folder = given.output or os.path.join(model.path, 'curve')
    metrics = load_metrics(given.metrics)
    draw_curve(model, files, folder, choices, metrics)


def define_flags() -> None:
  flags.DEFINE(Path(), 'model', None, 'Workdir of the model.')
  atoms, bits = declared(Lasers, 'S'), declared(Lasers, 'coefficient_bits')
  flags.DEFINE(Numbers(atoms | None), 'S', None, 'Atoms, if not as trained.')
  flags.DEFINE(
    Numbers(bits), 'coefficient_bits', None, 'Of a coefficient, the same.'
  )
  norm, step = declared(Lasers, 'residual_norm'), declared(Entropy, 'step')
  flags.DEFINE(
    Numbers(norm),
    'residual_norm',
    None,
    'Of the residual at which a site has enough atoms.',
  )
  flags.DEFINE(
    Numbers(step | None), 'quantizer_step', None, 'Between integers.'
  )
  flags.DEFINE_enum('levels', 'lloyd', list(LEVELS), 'Of coefficients.')
  flags.DEFINE_enum('pursuit', None, ['omp', 'rounded'], 'When to round.')
  flags.DEFINE_bool('context', False, 'Train and use a context model.')
  flags.DEFINE_list('metrics', [], 'Of a curve, besides PSNR and SSIM.')
  flags.DEFINE(Path(), 'output', None, 'Folder of a curve.')


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, words=True)
