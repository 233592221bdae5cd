"""Images to small files and back, by a trained model.

  python codec.py encode --model=runs/photos pictures/*.png files/
  python codec.py decode --model=runs/photos files/*.lz copies/
  python codec.py info files/*.lz

The model is a workdir whose code is discrete. How probable its codes are is
counted over the training split when it first encodes, and kept beside it, in
MODEL/codec.npz: a decoder needs that file, too. Images may have any size. Each
is coded by itself, and written whole or not at all, so that several processes
may work at once.
"""

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

import evaluate
from lasers_jax import codec as coding
from lasers_jax import scripts
from lasers_jax.data.sources import decode as read_picture
from lasers_jax.errors import InputError
from lasers_jax.evaluation import generation, pictures, protocol
from lasers_jax.files import written_whole
from lasers_jax.training.step import to_float

TABLES = 'codec.npz'
ENDING = '.lz'


class ModelCodec:
  """A trained model that turns images into files, and files into images."""

  def __init__(self, path: str, may_count: bool = False):
    """Reads a workdir.

    Args:
      may_count: count its codes where that has not been done.

    Raises:
      InputError: something that the user can mend.
    """
    self.model = evaluate.load(path)
    autoencoder = self.model.run.model
    weights = protocol.weights_hash(self.model.variables)
    file = os.path.join(path, TABLES)
    tables = coding.load_tables(file, weights)
    if tables is None:
      if not may_count:
        raise InputError(
          f'{file} is missing or of other weights: encode an image with '
          f'--model={path}, which makes it, or bring the one that the files '
          'were written with'
        )
      tables = self.count()
      coding.save_tables(file, weights, tables)
    self.codec = coding.Codec(
      autoencoder.bottleneck,
      autoencoder.encoder.f,
      autoencoder.multiple,
      tables,
      coding.hash_of(weights, tables),
    )

  def count(self) -> coding.Tables:
    """Counts the codes of the training split."""
    run = self.model.run
    source = run.data.open(run.data.train)
    logging.info('counting the codes of %d training images', len(source))
    batches = run.data.evaluation_batches(
      source, run.evaluation.batch_size, run.multiple
    )
    return coding.fit_tables(run.model.bottleneck, self._maps(batches))

  def _maps(self, batches):
    f = self.model.run.model.encoder.f
    for batch in batches:
      codes = self.codes_of(batch['image'])
      sites = tuple(side // f for side in batch['image'].shape[1:3])
      for i in np.flatnonzero(batch['mask']):
        yield jax.tree.map(lambda x, i=i: x[i], codes), sites

  def codes_of(self, images: np.ndarray) -> Any:
    """Codes images uint8 [B, h, w, 3] whose sides fit: NumPy arrays."""
    return jax.device_get(
      _encode(self.model.run.model, self.model.variables, images)
    )

  def encode(self, image: np.ndarray) -> bytes:
    """Returns the file of an image uint8 [h, w, 3], whatever its size."""
    height, width = image.shape[:2]
    multiple = self.codec.multiple
    padding = (0, -height % multiple), (0, -width % multiple), (0, 0)
    padded = np.pad(image, padding, mode='edge')
    codes = jax.tree.map(lambda x: x[0], self.codes_of(padded[None]))
    return self.codec.write(codes, height, width)

  def decode(self, data: bytes) -> np.ndarray:
    """Returns the image of a file: uint8 [h, w, 3].

    Raises:
      InputError: the file cannot be read.
    """
    codes, height, width = self.codec.read(data)
    model, run = self.model.run.model, self.model.run
    latents = _latents(
      model, self.model.variables, jax.tree.map(lambda x: x[None], codes)
    )
    images = generation.decode_latents(
      model, self.model.variables, jax.device_get(latents), self.model.mesh,
      run.decoding,
    )  # fmt: skip
    return images[0, :height, :width]


@functools.partial(jax.jit, static_argnums=0)
def _encode(model, variables, images):
  return model.apply(variables, to_float(images), method='encode')


@functools.partial(jax.jit, static_argnums=0)
def _latents(model, variables, codes):
  def decode(module, codes):
    return module.bottleneck.decode(codes)

  return model.apply(variables, codes, method=decode)


def encode_files(path: str, files: list[str], folder: str) -> None:
  """Writes the file of each picture into a folder, and says how long."""
  codec = ModelCodec(path, may_count=True)
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
  codec = ModelCodec(path)

  def act(file: str, target: str) -> None:
    pictures.save_png(target, codec.decode(_bytes(file)))

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
  scripts.set_up_jax()
  command, *rest = words or ['']
  path = flags.FLAGS.model
  if command == 'info' and rest:
    say(rest)
    return
  if command not in ('encode', 'decode') or len(rest) < 2 or not path:
    raise InputError(
      'python codec.py encode|decode --model=WORKDIR FILE ... FOLDER, or '
      'python codec.py info FILE ...'
    )
  act = encode_files if command == 'encode' else decode_files
  act(path, rest[:-1], rest[-1])


if __name__ == '__main__':
  flags.DEFINE_string('model', None, 'Workdir of the model.')
  scripts.run(main, words=True)
