"""Compresses images to small files, and reads them back, by a trained model.

  lasers-jax codec encode --model=runs/photos images/*.png files/
  lasers-jax codec decode --model=runs/photos files/*.lz decoded/
  lasers-jax codec info files/*.lz
  lasers-jax codec curve --model=runs/photos --S=1,2,3 \\
    --coefficient_bits=4,6 images/*.png

The last word of encode and decode is the folder to write into. Images may have
any size. Each file is written whole or not at all, so several processes may
work at once.

The model is a workdir or an exported model with a discrete code, or the name of
one that comes along: photo-codec. The first encoding counts the codes of
training images and writes MODEL/codec.npz, which decoding requires, too. Flags
that change the code (below) each lead to a file of their own beside it. Which
of them apply depends on the bottleneck:

  lasers    --S --coefficient_bits --levels --pursuit
  lista     --coefficient_bits --levels
  scq       --coefficient_bits
  entropy   --quantizer_step --price
  priced    --quantizer_step --price
  all       --context

--search=8 lets the decoder improve the codes of each image in so many rounds
(`priced`, and `entropy` with a --price): fewer bits, more decibels, more time.
Files are read as before, with no flag.

  lasers-jax codec encode --prior=runs/photos-ar images/*.png files/
  lasers-jax codec decode --prior=runs/photos-ar files/*.lz decoded/

codes images by the probabilities of a trained prior `ar` (`lasers-jax prior`):
smaller files, of images of the side that it was trained on, which can be
decoded only on the same kind of machine: see --prior below.

  lasers-jax codec encode --model=runs/repair --degradation noisy/*.png files/

restores degraded images while it codes them, by a model that was trained with a
section `degradation`: the files are those of the restored images.

`curve` takes several values of a flag, joined by commas, and measures all of
their combinations beside JPEG, WebP and AVIF. The others take one.
"""

import os

from absl import flags

from lasers_jax.bottlenecks import Lasers
from lasers_jax.bottlenecks.integers import Stepped
from lasers_jax.cli import program
from lasers_jax.cli.command_line import (
  Model,
  Numbers,
  Path,
  define_images,
)
from lasers_jax.codec.model import LEVELS
from lasers_jax.core.ranges import Whole, declared
from lasers_jax.core.storage import checked
from lasers_jax.errors import InputError
from lasers_jax.experiment import shipped
from lasers_jax.experiment.codec_files import (
  decode_files,
  draw_curve,
  encode_files,
  encode_files_by_prior,
  print_info,
  reader_of_degraded,
)
from lasers_jax.experiment.codecs import choices_of
from lasers_jax.experiment.foreign import with_images
from lasers_jax.experiment.loading import load
from lasers_jax.experiment.priors.model import load_prior
from lasers_jax.metrics.registry import load_metrics

# Flags of codes that differ from training.
CHANGES = 'S', 'coefficient_bits', 'quantizer_step', 'price', 'pursuit'
CHANGES = (*CHANGES, 'levels', 'context', 'search')


def main(words: list[str]) -> None:
  given = flags.FLAGS
  program.set_up_jax()
  command, *files = map(checked, words or [''])
  required = {'info': 1, 'curve': 1, 'encode': 2, 'decode': 2}
  if len(files) < required.get(command, len(files) + 1):
    raise InputError(
      'lasers-jax codec encode|decode --model=WORKDIR FILE ... FOLDER (or '
      '--prior=WORKDIR), '
      'lasers-jax codec curve --model=WORKDIR FILE ... or '
      'lasers-jax codec info FILE ...'
    )
  if (given.degradation or given.masks) and (
    command != 'encode' or given.prior
  ):
    raise InputError('--degradation and --masks are of encode by a --model')
  if command == 'info':
    print_info(files)
    return
  if given.prior:
    code_by_prior(given, command, files)
    return
  if not given.model:
    raise InputError('--model=WORKDIR or --prior=WORKDIR is needed')
  fields = {
    'S': given.S,
    'coefficient_bits': given.coefficient_bits,
    'step': given.quantizer_step,
    'price': given.price,
    'pursuit': [given.pursuit],
  }
  choices = choices_of(fields, given.levels, given.context)
  model = with_images(load(given.model), given.data, given.side)
  if command == 'decode':
    decode_files(model, files[:-1], files[-1])
  elif command == 'encode':
    if len(choices) > 1 or len(given.search) != 1:
      raise InputError(
        'encode takes one --S, --coefficient_bits, --quantizer_step, --price '
        'and --search'
      )
    read = None
    if given.degradation or given.masks:
      read = reader_of_degraded(model, given.masks)
    encode_files(
      model, files[:-1], files[-1], choices[0], read, given.search[0]
    )
  else:
    folder = given.output or os.path.join(
      shipped.own_folder(model.folder, None), 'curve'
    )
    metrics = load_metrics(given.metrics)
    draw_curve(
      model, files, folder, choices, metrics, given.beside, given.search
    )


def code_by_prior(
  given: flags.FlagValues, command: str, files: list[str]
) -> None:
  """Encodes or decodes files by a prior over maps."""
  if command == 'curve':
    raise InputError('curve measures models: leave out --prior')
  changed = [name for name in CHANGES if given[name].present]
  if changed:
    raise InputError(
      f'--prior is of codes as the model was trained: leave out --{changed[0]}'
    )
  model = load(given.model) if given.model else None
  prior = load_prior(given.prior, model=model)
  act = encode_files_by_prior if command == 'encode' else decode_files
  act(prior, files[:-1], files[-1])


def define_flags() -> None:
  flags.DEFINE(
    Model(),
    'model',
    None,
    'Workdir, exported model, the name of a model of the package ('
    + ', '.join(shipped.MODELS)
    + '), or a tokenizer of another project: diffusers:FOLDER or a file of '
    'weights, which need --data once.',
  )
  define_images()
  flags.DEFINE(
    Model(),
    'prior',
    None,
    'Workdir of a trained prior ar, or the name of one that comes along, by '
    'which to encode and decode instead; it '
    'finds its model where that was in training, or at --model. A file is '
    'decoded only with the same weights, version of JAX, program and kind of '
    'device (CPU: model and vector instructions) that encoded it, since a '
    'prior computes in floats; it is refused elsewhere.',
  )
  _define_changes()
  _define_restoring()
  _define_curve()


def _define_changes() -> None:
  """Defines what an encoder may change of a trained model."""
  atoms, bits = declared(Lasers, 'S'), declared(Lasers, 'coefficient_bits')
  flags.DEFINE(
    Numbers(atoms | None),
    'S',
    None,
    'Atoms to use for each site; as in training if unset.',
  )
  flags.DEFINE(
    Numbers(bits),
    'coefficient_bits',
    None,
    'Bits of each coefficient; as in training if unset.',
  )
  step = declared(Stepped, 'step')
  flags.DEFINE(
    Numbers(step | None),
    'quantizer_step',
    None,
    'Step of rounding, where larger is coarser; as in training if unset.',
  )
  flags.DEFINE(
    Numbers(declared(Stepped, 'price') | None),
    'price',
    None,
    'Price of a bit in squared steps, where larger leaves out more; as in '
    'training if unset.',
  )
  flags.DEFINE_enum(
    'levels',
    'lloyd',
    list(LEVELS),
    'How to find the levels of coefficients that differ from training.',
  )
  flags.DEFINE_enum(
    'pursuit',
    None,
    ['omp', 'rounded'],
    'Round coefficients after the pursuit (omp) or inside it (rounded); as in '
    'training if unset.',
  )
  flags.DEFINE_bool(
    'context',
    False,
    'Predict each code from those around it by a network, which is trained '
    'once: smaller files, more time.',
  )
  flags.DEFINE(
    Numbers(Whole),
    'search',
    '0',
    'Rounds in which the decoder improves the codes of each image, by its '
    'error and the price of its bits; some 8 are worth it.',
  )


def _define_restoring() -> None:
  """Defines that images are degraded, and their masks."""
  flags.DEFINE_bool(
    'degradation',
    False,
    'Images are degraded, and the model restores them: write files of the '
    'restored ones.',
  )
  flags.DEFINE(
    Path(),
    'masks',
    None,
    'Folder with the masks of degraded images: PNG files of the same names, '
    'white in the holes.',
  )


def _define_curve() -> None:
  """Defines what a curve has beside the model, and where it goes."""
  flags.DEFINE_list('metrics', [], 'Metrics of a curve, besides PSNR and SSIM.')
  flags.DEFINE_list(
    'beside',
    [],
    'JSON files of other codecs on the same images, for a curve: published '
    'results, or the curve.json of another model.',
  )
  flags.DEFINE(
    Path(), 'output', None, 'Folder of a curve; MODEL/curve if unset.'
  )


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, words=True)
