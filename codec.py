"""Images to small files and back, by a trained model.

  python codec.py encode --model=runs/photos pictures/*.png files/
  python codec.py decode --model=runs/photos files/*.lz copies/
  python codec.py info files/*.lz
  python codec.py curve --model=runs/photos --S=1,2,3 --bits=4,6 pictures/*.png

The model is a workdir whose code is discrete. How probable its codes are is
counted over images of the training split when it first encodes, and kept beside
it, in MODEL/codec.npz: a decoder needs that file, too. A model with `lasers`
may encode with fewer atoms and other coefficients than it was trained with:
--S, --bits, --levels and --pursuit; with --tolerance=0.5, say, and coefficients
rounded in the pursuit, each site takes as many atoms as it needs. One with
`lista` has --bits and --levels, and one with `entropy` may round more coarsely:
--step. How probable codes are can be told from those around them (--context):
smaller files, more time. Each choice has a file of its own. Images may have any
size. Each is coded by itself, and written whole or not at all, so that several
processes may work at once.
"""

from lasers_jax import signals

if __name__ == '__main__':
  signals.end_without_traceback()

import functools
import glob
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

import evaluate
from lasers_jax import codec as coding
from lasers_jax import scripts
from lasers_jax.bottlenecks import Entropy, Lasers
from lasers_jax.command_line import Numbers, Path
from lasers_jax.data.sources import decode as read_picture
from lasers_jax.errors import InputError, optional
from lasers_jax.evaluation import (
  comparison,
  pictures,
  protocol,
  rate_distortion,
)
from lasers_jax.evaluation.measures import Measures, load_measures
from lasers_jax.evaluation.model_codec import (
  LEVELS,
  ModelCodec,
  fit_levels,
  fit_tables,
  with_levels,
)
from lasers_jax.files import as_json, held, one_line, written_whole
from lasers_jax.ranges import declared
from lasers_jax.training import workdir

ENDING = '.lz'
FITTED_TO = 5_000  # images of the training split


class Choice(NamedTuple):
  """How to encode, where not as trained; None is as trained."""

  S: int | None = None
  bits: int | None = None
  tolerance: float | None = None
  step: float | None = None
  levels: str = 'lloyd'  # of LEVELS
  pursuit: str | None = None
  context: bool = False  # whether what is around tells what is probable

  @property
  def changes(self) -> dict[str, Any]:
    """What changes of the bottleneck's fields."""
    fields = {
      'S': self.S,
      'coefficient_bits': self.bits,
      'pursuit': self.pursuit,
      'tolerance': self.tolerance,
      'step': self.step,
    }
    return {name: x for name, x in fields.items() if x is not None}

  @property
  def fits_levels(self) -> bool:
    """Whether coefficients are of other sizes than in training."""
    return bool(self.changes.keys() - {'tolerance', 'step'})

  @property
  def file(self) -> str:
    """The name of its state in a workdir."""
    parts = [f'{name}{x}' for name, x in self.changes.items()]
    parts += [self.levels] if self.fits_levels else []
    parts += ['context'] if self.context else []
    return '-'.join(['codec', *parts]) + '.npz'


AS_TRAINED = Choice()


def open_encoder(path: str, choice: Choice = AS_TRAINED) -> ModelCodec:
  """Reads a workdir, and its state for a choice; or makes it, and keeps it.

  Raises:
    InputError: something that the user can mend.
  """
  coding.range_coder()  # whether there is one, before codes are counted
  model = evaluate.load(path, bottleneck_changes=choice.changes)
  weights = protocol.weights_hash(model.variables)
  file = os.path.join(path, choice.file)
  kept = functools.partial(coding.load_kept, file, weights, choice.changes)
  state = kept()
  if state is None:
    logging.info('fitting %s to training images', file)
    fitted = fit(model, choice, weights, path)
    # Who is first wins: files of a state that was replaced have no decoder.
    lock = os.path.join(path, '.codec.lock')
    with workdir.writing(path), held(lock):
      state = kept()
      if state is None:
        state = fitted
        coding.save(file, state)
  return build(model, state, file)


def fit(
  model: evaluate.Model, choice: Choice, weights: str, path: str
) -> coding.State:
  """Counts how probable codes of training images are, encoded by a choice."""
  autoencoder, variables = model.run.model, model.variables
  batches, levels = list(training_batches(model, path)), None
  if choice.fits_levels:
    find = LEVELS[choice.levels]
    levels = fit_levels(autoencoder, variables, batches, find)
    variables = with_levels(variables, levels)
  tables = fit_tables(autoencoder, variables, batches, choice.context)
  return coding.State(weights, choice.changes, tables, levels)


def open_decoder(path: str, name: bytes) -> ModelCodec:
  """Reads a workdir, and of its states the one that a file names.

  Raises:
    InputError: there is no such state of its weights, or one is damaged.
  """
  for file in sorted(glob.glob(os.path.join(glob.escape(path), 'codec*.npz'))):
    state = coding.load(file)
    if state.hash() == name:
      model = evaluate.load(path, bottleneck_changes=state.changes)
      if state.weights == protocol.weights_hash(model.variables):
        return build(model, state, file)
  raise InputError(
    f'of another model: no codec*.npz in {path} is {name.hex()} and of its '
    'weights; bring the one that was made when the file was encoded'
  )


def build(model: evaluate.Model, state: coding.State, file: str) -> ModelCodec:
  """Makes the codec of a model and a state; InputError names its file."""
  _, run, mesh, _, variables = model
  try:
    return ModelCodec(run.model, variables, mesh, run.decoding, state)
  except InputError as error:
    raise InputError(
      f'{file} is damaged: {error}; remove it, and encode again'
    ) from error


def training_batches(model: evaluate.Model, path: str) -> Iterator[dict]:
  """Images of the training split, spread over all of it."""
  run = model.run
  source = run.data.open(run.data.train, path)
  n = min(len(source), FITTED_TO)
  numbers = np.linspace(0, len(source) - 1, n).astype(int)
  return run.data.evaluation_batches(
    [source[i] for i in numbers], run.evaluation.batch_size, run.multiple
  )


def encode_files(
  path: str, files: list[str], folder: str, choice: Choice = AS_TRAINED
) -> None:
  """Writes the file of each picture into a folder, and says how long."""
  targets = _targets(files, folder, ENDING)
  codec = open_encoder(path, choice)
  sizes, pixels = [], []

  def act(file: str, target: str) -> None:
    image = _picture(file)
    data = codec.encode(image)
    with workdir.writing(target), written_whole(target) as output:
      output.write(data)
    sizes.append(len(data))
    pixels.append(image.shape[0] * image.shape[1])

  _each(targets, act)
  print(
    f'{len(files)} images, {sum(sizes)} bytes, '
    f'{8 * sum(sizes) / sum(pixels):.4g} bits per pixel'
  )


def decode_files(path: str, files: list[str], folder: str) -> None:
  """Writes the picture of each file into a folder, as PNG."""
  targets = _targets(files, folder, '.png')
  decoder = functools.cache(functools.partial(open_decoder, path))

  def act(file: str, target: str) -> None:
    data = _bytes(file)
    codec = decoder(coding.unpack(data).model)
    image = codec.decode(data)
    with workdir.writing(target):
      pictures.save_png(target, image)

  _each(targets, act)
  print(f'{len(files)} images')


def say(files: list[str]) -> None:
  """Prints what the frames of files say."""
  for file in files:
    data = _of(file, _bytes, file)
    frame = _of(file, coding.unpack, data)
    print(
      f'{file}: {frame.height}x{frame.width} pixels, {len(data)} bytes, '
      f'{8 * len(data) / (frame.height * frame.width):.4g} bits per pixel, '
      f'model {frame.model.hex()}'
    )


def draw_curve(
  path: str,
  files: list[str],
  folder: str,
  choices: list[Choice],
  measures: Measures,
) -> None:
  """Measures a model's choices beside JPEG, WebP and AVIF on the same images.

  Writes curve.md, curve.json and curve.png into a folder, and prints the table.

  Raises:
    InputError: something that the user can mend.
  """
  if measures.scores:
    raise InputError(
      f'a curve has measures of single images, not {", ".join(measures.scores)}'
    )
  images = [_of(file, _picture, file) for file in files]
  workdir.check_folder(folder)
  name = os.path.basename(os.path.normpath(path))
  coders = list(rate_distortion.classical())
  codecs = [open_encoder(path, choice) for choice in choices]
  for choice, codec in zip(choices, codecs, strict=True):
    fields = comparison.say_settings(choice.changes) or 'as trained'
    fields += ', context' if choice.context else ''
    coders.append(
      rate_distortion.Coder(name, fields, codec.encode, codec.decode)
    )
  rows = [
    rate_distortion.measure(coder, images, measures)
    for coder in tqdm(coders, unit='setting', disable=None)
  ]
  found = {
    'rows': rows,
    'protocol': {
      **protocol.PROTOCOL,
      **measures.protocol,
      'images': [os.path.basename(file) for file in files],
      'weights': codecs[0].state.weights,
      'commit': scripts.commit(),
    },
  }
  base, table = os.path.join(folder, 'curve'), rate_distortion.table(rows)
  workdir.write_text(f'{base}.json', as_json(found))
  workdir.write_text(f'{base}.md', table)
  print(table, end='', flush=True)
  with optional('curve.png'):
    rate_distortion.plot(rows, f'{base}.png')


def choices_of(
  numbers: list[int | None] | None,
  bits: list[int | None] | None,
  tolerances: list[float | None] | None,
  steps: list[float | None] | None,
  *others: Any,
) -> list[Choice]:
  """All that flags name: each S with each number of bits, and so on."""
  values = [x or [None] for x in (numbers, bits, tolerances, steps)]
  return [Choice(*some, *others) for some in itertools.product(*values)]


def _targets(files: list[str], folder: str, ending: str) -> dict[str, str]:
  """Makes the folder; finds what each file becomes in it: {target: file}.

  Raises:
    InputError: two files would become one, or the folder cannot be written.
  """
  targets: dict[str, str] = {}
  for file in files:
    stem = os.path.splitext(os.path.basename(file))[0]
    target = os.path.join(folder, stem + ending)
    if target in targets:
      raise InputError(f'{targets[target]} and {file} would both be {target}')
    targets[target] = file
  workdir.check_folder(folder)
  return targets


def _each(targets: dict[str, str], act: Callable[[str, str], None]) -> None:
  """Acts on each file and its target, and shows how far it is."""
  for target, file in tqdm(targets.items(), unit='image', disable=None):
    _of(file, act, file, target)


def _of(file: str, act: Callable[..., Any], *args: Any) -> Any:
  """Acts; an error says of which file it is."""
  try:
    return act(*args)
  except InputError as error:
    raise InputError(f'{file}: {error}') from error


def _bytes(file: str) -> bytes:
  try:
    with open(file, 'rb') as opened:
      return opened.read()
  except OSError as error:
    raise InputError(f'cannot be read: {one_line(error)}') from error


def _picture(file: str) -> np.ndarray:
  try:
    return read_picture(file)
  except Exception as error:  # a damaged file may raise whatever it likes
    raise InputError(f'no picture: {one_line(error)}') from error


def main(words: list[str]) -> None:
  given = flags.FLAGS
  scripts.set_up_jax()
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
  path = given.model
  if not path:
    raise InputError('--model=WORKDIR is needed')
  choices = choices_of(
    given.S,
    given.bits,
    given.tolerance,
    given.step,
    given.levels,
    given.pursuit,
    given.context,
  )
  if command == 'decode':
    decode_files(path, files[:-1], files[-1])
  elif command == 'encode':
    if len(choices) > 1:
      raise InputError('encode takes one --S, --bits, --tolerance and --step')
    encode_files(path, files[:-1], files[-1], choices[0])
  else:
    folder = given.output or os.path.join(path, 'curve')
    measures = load_measures(given.measures)
    draw_curve(path, files, folder, choices, measures)


if __name__ == '__main__':
  flags.DEFINE(Path(), 'model', None, 'Workdir of the model.')
  atoms, bits = declared(Lasers, 'S'), declared(Lasers, 'coefficient_bits')
  flags.DEFINE(Numbers(atoms | None), 'S', None, 'Atoms, if not as trained.')
  flags.DEFINE(Numbers(bits), 'bits', None, 'Of a coefficient, the same.')
  error, step = declared(Lasers, 'tolerance'), declared(Entropy, 'step')
  flags.DEFINE(
    Numbers(error), 'tolerance', None, 'Error at which a site has enough atoms.'
  )
  flags.DEFINE(Numbers(step | None), 'step', None, 'Between integers.')
  flags.DEFINE_enum('levels', 'lloyd', list(LEVELS), 'Of coefficients.')
  flags.DEFINE_enum('pursuit', None, ['omp', 'rounded'], 'When to round.')
  flags.DEFINE_bool('context', False, 'Train and use a context model.')
  flags.DEFINE_list('measures', [], 'Of a curve, besides PSNR and SSIM.')
  flags.DEFINE(Path(), 'output', None, 'Folder of a curve.')
  scripts.run(main, words=True)
