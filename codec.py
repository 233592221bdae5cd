"""Images to small files and back, by a trained model.

  python codec.py encode --model=runs/photos pictures/*.png files/
  python codec.py decode --model=runs/photos files/*.lz copies/
  python codec.py info files/*.lz

The model is a workdir whose code is discrete. How probable its codes are is
counted over images of the training split when it first encodes, and kept beside
it, in MODEL/codec.npz: a decoder needs that file, too. A model with `lasers`
may encode with fewer atoms and other coefficients than it was trained with:
--S, --bits, --levels and --pursuit; each choice has a file of its own. Images
may have any size. Each is coded by itself, and written whole or not at all, so
that several processes may work at once.
"""

import functools
import glob
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

import evaluate
from lasers_jax import codec as coding
from lasers_jax import scripts
from lasers_jax.coding import scalar
from lasers_jax.data.sources import decode as read_picture
from lasers_jax.errors import InputError
from lasers_jax.evaluation import generation, pictures, protocol
from lasers_jax.files import written_whole
from lasers_jax.training.step import to_float

ENDING = '.lz'
FITTED_TO = 5_000  # images of the training split
LEVELS = {
  'lloyd': scalar.lloyd_levels,
  'mu_law': scalar.mu_law_levels,
  'even': scalar.even_levels,
}


class Choice(NamedTuple):
  """How to encode, where not as trained; None is as trained."""

  S: int | None = None
  bits: int | None = None
  levels: str = 'lloyd'  # of LEVELS
  pursuit: str | None = None

  @property
  def changes(self) -> dict[str, Any]:
    """What changes of the bottleneck's fields."""
    fields = {
      'S': self.S, 'coefficient_bits': self.bits, 'pursuit': self.pursuit
    }
    return {name: x for name, x in fields.items() if x is not None}

  @property
  def file(self) -> str:
    """The name of its state in a workdir."""
    parts = [f'{name}{x}' for name, x in self.changes.items()]
    return '-'.join(['codec', *parts, *[self.levels] * bool(parts)]) + '.npz'


AS_TRAINED = Choice()


class ModelCodec:
  """A trained model that turns images into files, and files into images."""

  def __init__(self, model: evaluate.Model, state: coding.State):
    self.model, self.state = model, state
    autoencoder = model.run.model
    self.variables = with_levels(model.variables, state.levels)
    self.codec = coding.Codec(
      autoencoder.bottleneck,
      autoencoder.encoder.f,
      autoencoder.multiple,
      state.tables,
      state.hash(),
    )

  def codes_of(self, image: np.ndarray) -> Any:
    """Codes an image uint8 [h, w, 3] of any size: NumPy arrays."""
    multiple = self.codec.multiple
    height, width = image.shape[:2]
    padding = (0, -height % multiple), (0, -width % multiple), (0, 0)
    padded = np.pad(image, padding, mode='edge')[None]
    codes = _encode(self.model.run.model, self.variables, padded)
    return first(jax.device_get(codes))

  def encode(self, image: np.ndarray) -> bytes:
    """Returns the file of an image uint8 [h, w, 3]."""
    return self.codec.write(self.codes_of(image), *image.shape[:2])

  def decode(self, data: bytes) -> np.ndarray:
    """Returns the image of a file: uint8 [h, w, 3].

    Raises:
      InputError: the file cannot be read.
    """
    codes, height, width = self.codec.read(data)
    run = self.model.run
    batch = jax.tree.map(lambda x: x[None], codes)
    latents = jax.device_get(_latents(run.model, self.variables, batch))
    images = generation.decode_latents(
      run.model, self.variables, latents, self.model.mesh, run.decoding
    )
    return images[0, :height, :width]


def first(codes: Any) -> Any:
  """The codes of the first image of a batch."""
  return jax.tree.map(lambda x: x[0], codes)


@functools.partial(jax.jit, static_argnums=0)
def _encode(model, variables, images):
  return model.apply(variables, to_float(images), method='encode')


@functools.partial(jax.jit, static_argnums=0)
def _latents(model, variables, codes):
  def decode(module, codes):
    return module.bottleneck.decode(codes)

  return model.apply(variables, codes, method=decode)


@functools.partial(jax.jit, static_argnums=0)
def _multiples(model, variables, images):
  def multiples(module, images):
    return module.bottleneck.multiples(module.encoder(images - 0.5))

  return model.apply(variables, to_float(images), method=multiples)


def with_levels(variables: Any, levels: np.ndarray | None) -> Any:
  """Gives the coefficients of a `lasers` bottleneck other levels."""
  if levels is None:
    return variables
  none = np.zeros_like(levels)
  statistics = dict(variables['codebook']['bottleneck'])
  statistics['coefficients'] = {
    **statistics['coefficients'],
    'levels': scalar.Levels(levels, none, none),
  }
  codebook = {**variables['codebook'], 'bottleneck': statistics}
  return {**variables, 'codebook': codebook}


def open_encoder(path: str, choice: Choice = AS_TRAINED) -> ModelCodec:
  """Reads a workdir, and its state for a choice; or makes it, and keeps it.

  Raises:
    InputError: something that the user can mend.
  """
  model = evaluate.load(path, bottleneck_changes=choice.changes)
  weights = protocol.weights_hash(model.variables)
  file = os.path.join(path, choice.file)
  if os.path.exists(file):
    state = coding.load(file)
    if state.weights == weights:
      return ModelCodec(model, state)
  levels = None
  if choice.changes:
    levels = fit_levels(model, LEVELS[choice.levels])
  state = coding.State(weights, choice.changes, {}, levels)
  untold = ModelCodec(model, state)
  maps = _maps(untold)
  tables = coding.fit_tables(model.run.model.bottleneck, maps)
  state = state._replace(tables=tables)
  coding.save(file, state)
  return ModelCodec(model, state)


def open_decoders(path: str) -> dict[bytes, ModelCodec]:
  """Reads a workdir for all its states, by what names them in files.

  Raises:
    InputError: there is none of these weights, or one is damaged.
  """
  found, weights = {}, None
  for file in sorted(glob.glob(os.path.join(glob.escape(path), 'codec*.npz'))):
    state = coding.load(file)
    model = evaluate.load(path, bottleneck_changes=state.changes)
    weights = weights or protocol.weights_hash(model.variables)
    if state.weights == weights:
      found[state.hash()] = ModelCodec(model, state)
  if not found:
    raise InputError(
      f'{path} has no codec.npz of its weights: encode an image with '
      f'--model={path}, which makes it, or bring the one that the files were '
      'written with'
    )
  return found


def fit_levels(model: evaluate.Model, find: Callable) -> np.ndarray:
  """Finds levels for the coefficients of a model whose fields were changed."""
  bottleneck = model.run.model.bottleneck
  count, variables = 2**bottleneck.coefficient_bits, model.variables
  # Where rounding is inside the pursuit, levels change what is rounded.
  for _ in range(4 if bottleneck.pursuit == 'rounded' else 1):
    multiples = [
      np.asarray(_multiples(model.run.model, variables, batch['image']))
      for batch in _training_batches(model)
    ]
    levels = np.asarray(find(np.concatenate(multiples).ravel(), count))
    variables = with_levels(variables, levels)
  return levels


def _training_batches(model: evaluate.Model) -> Iterator[dict]:
  """Images of the training split, spread over all of it."""
  run = model.run
  source = run.data.open(run.data.train)
  n = min(len(source), FITTED_TO)
  numbers = np.linspace(0, len(source) - 1, n).astype(int)
  logging.info('going through %d training images', n)
  return run.data.evaluation_batches(
    [source[i] for i in numbers], run.evaluation.batch_size, run.multiple
  )


def _maps(codec: ModelCodec) -> Iterator[tuple[Any, tuple[int, int]]]:
  """The codes of training images, and H and W of their latents."""
  model = codec.model.run.model
  for batch in _training_batches(codec.model):
    codes = jax.device_get(_encode(model, codec.variables, batch['image']))
    sites = tuple(x // model.encoder.f for x in batch['image'].shape[1:3])
    for i in np.flatnonzero(batch['mask']):
      yield jax.tree.map(lambda x, i=i: x[i], codes), sites


def encode_files(
  path: str, files: list[str], folder: str, choice: Choice = AS_TRAINED
) -> None:
  """Writes the file of each picture into a folder, and says how long."""
  codec = open_encoder(path, choice)
  sizes, pixels = [], []

  def act(file: str, target: str) -> None:
    image = _picture(file)
    data = codec.encode(image)
    with written_whole(target) as output:
      output.write(data)
    sizes.append(len(data))
    pixels.append(image.shape[0] * image.shape[1])

  _each(files, folder, ENDING, act)
  print(
    f'{len(files)} images, {sum(sizes)} bytes, '
    f'{8 * sum(sizes) / sum(pixels):.4g} bits per pixel'
  )


def decode_files(path: str, files: list[str], folder: str) -> None:
  """Writes the picture of each file into a folder, as PNG."""
  decoders = open_decoders(path)
  any_of_them = next(iter(decoders.values()))

  def act(file: str, target: str) -> None:
    data = _bytes(file)
    # Where none fits, any says so.
    codec = decoders.get(coding.unpack(data).model, any_of_them)
    pictures.save_png(target, codec.decode(data))

  _each(files, folder, '.png', act)
  print(f'{len(files)} images')


def say(files: list[str]) -> None:
  """Prints what the frames of files say."""
  for file in files:
    data = _bytes(file)
    frame = _of(file, lambda data=data: coding.unpack(data))
    print(
      f'{file}: {frame.height}x{frame.width} pixels, {len(data)} bytes, '
      f'{8 * len(data) / (frame.height * frame.width):.4g} bits per pixel, '
      f'model {frame.model.hex()}'
    )


def _each(
  files: list[str], folder: str, ending: str, act: Callable[[str, str], None]
) -> None:
  """Acts on each file and its target in a folder, and shows how far it is."""
  targets: dict[str, str] = {}
  for file in files:
    stem = os.path.splitext(os.path.basename(file))[0]
    target = os.path.join(folder, stem + ending)
    if target in targets:
      raise InputError(f'{targets[target]} and {file} would both be {target}')
    targets[target] = file
  os.makedirs(folder, exist_ok=True)
  for target, file in tqdm(targets.items(), unit='image', disable=None):
    _of(file, lambda file=file, target=target: act(file, target))


def _of(file: str, act: Callable[[], Any]) -> Any:
  """Acts; an error says of which file it is."""
  try:
    return act()
  except InputError as error:
    raise InputError(f'{file}: {error}') from error


def _bytes(file: str) -> bytes:
  try:
    with open(file, 'rb') as opened:
      return opened.read()
  except OSError as error:
    raise InputError(f'{file} cannot be read: {error.strerror}') from error


def _picture(file: str) -> np.ndarray:
  try:
    return read_picture(file)
  except (OSError, SyntaxError, ValueError) as error:
    raise InputError(f'no picture: {error}') from error


def main(words: list[str]) -> None:
  given = flags.FLAGS
  scripts.set_up_jax()
  command, *rest = words or ['']
  if command == 'info' and rest:
    say(rest)
    return
  if command not in ('encode', 'decode') or len(rest) < 2 or not given.model:
    raise InputError(
      'python codec.py encode|decode --model=WORKDIR FILE ... FOLDER, or '
      'python codec.py info FILE ...'
    )
  *files, folder = rest
  if command == 'decode':
    decode_files(given.model, files, folder)
    return
  choice = Choice(given.S, given.bits, given.levels, given.pursuit)
  encode_files(given.model, files, folder, choice)


if __name__ == '__main__':
  flags.DEFINE_string('model', None, 'Workdir of the model.')
  flags.DEFINE_integer('S', None, 'Atoms for a site, if other than trained.')
  flags.DEFINE_integer('bits', None, 'Of a coefficient.')
  flags.DEFINE_enum('levels', 'lloyd', list(LEVELS), 'Of coefficients.')
  flags.DEFINE_enum('pursuit', None, ['omp', 'rounded'], 'When to round.')
  scripts.run(main, words=True)
