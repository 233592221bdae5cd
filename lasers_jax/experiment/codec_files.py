"""Compresses image files by a trained model; draws rate-distortion curves."""

import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

from lasers_jax.codec.container import unpack
from lasers_jax.codec.model import ModelCodec
from lasers_jax.core import provenance
from lasers_jax.core.images import save_png
from lasers_jax.core.storage import (
  as_json,
  as_local,
  check_folder,
  is_folder,
  one_line,
  read_bytes,
  write_text,
  writing,
  written_whole,
)
from lasers_jax.data.sources import decode as read_image
from lasers_jax.errors import InputError, optional
from lasers_jax.evaluation import bjontegaard, protocol, rate_distortion
from lasers_jax.experiment.codecs import AS_TRAINED, Choice, check_search
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.priors.model import TrainedPrior
from lasers_jax.experiment.restoring import prepare
from lasers_jax.metrics.registry import Metrics
from lasers_jax.report import comparison, rate_distortion_curve

ENDING = '.lz'


def encode_files(
  model: TrainedModel,
  files: list[str],
  folder: str,
  choice: Choice = AS_TRAINED,
  read: Callable[[str], np.ndarray] | None = None,
  search: int = 0,
) -> None:
  """Writes the compressed file of each image into a folder; prints totals.

  Args:
    read: returns the image of a file; None is `read_picture`.
    search: rounds in which the decoder improves the codes of each image.

  Raises:
    InputError: a user error.
  """
  targets = _targets(files, folder, ENDING)
  _, encode = _coding(model, choice, search)
  _encode(targets, encode, read or read_picture)


def _coding(
  model: TrainedModel, choice: Choice, search: int
) -> tuple[ModelCodec, Callable[[np.ndarray], bytes]]:
  """The codec of a choice, and how it encodes an image."""
  check_search(model.with_(**choice.changes), search)
  codec = model.encoder(choice)
  return codec, functools.partial(codec.encode, search=search)


def reader_of_degraded(
  model: TrainedModel, masks: str | None
) -> Callable[[str], np.ndarray]:
  """Returns what reads degraded images, as the encoder of a model sees them.

  Args:
    masks: a folder with the mask of each image, a PNG file of its name that is
      white in the holes; None without masks.
  """

  def read(file: str) -> np.ndarray:
    image, mask = read_picture(file), None
    if masks is not None:
      stem = os.path.splitext(os.path.basename(file))[0]
      mask = read_picture(os.path.join(masks, f'{stem}.png'))[..., 0] > 127
    [inputs] = prepare(model.experiment.degradation, image[None], mask)
    return inputs

  return read


def encode_files_by_prior(
  prior: TrainedPrior, files: list[str], folder: str
) -> None:
  """Writes the file of each image by a prior, as `encode_files` does."""
  _encode(_targets(files, folder, ENDING), prior.compress, read_picture)


def _encode(
  targets: dict[str, str],
  encode: Callable[[np.ndarray], bytes],
  read: Callable[[str], np.ndarray],
) -> None:
  """Writes what a function makes of images; prints totals."""
  sizes, pixels = [], []

  def act(file: str, target: str) -> None:
    image = read(file)
    data = encode(image)
    with writing(target), written_whole(target) as output:
      output.write(data)
    sizes.append(len(data))
    pixels.append(image.shape[0] * image.shape[1])

  _each(targets, act)
  print(
    f'{_images(len(targets))}, {sum(sizes)} bytes, '
    f'{8 * sum(sizes) / sum(pixels):.4g} bits per pixel'
  )


def decode_files(
  model: TrainedModel | TrainedPrior, files: list[str], folder: str
) -> None:
  """Writes the image of each compressed file into a folder, as PNG.

  Args:
    model: what encoded them.
  """
  targets = _targets(files, folder, '.png')

  def act(file: str, target: str) -> None:
    image = model.decompress(_read_bytes(file))
    with writing(target):
      save_png(target, image)

  _each(targets, act)
  print(_images(len(files)))


def _images(count: int) -> str:
  return '1 image' if count == 1 else f'{count} images'


def print_info(files: list[str]) -> None:
  """Prints the size, the bits per pixel and the model of compressed files."""
  for file in files:
    data = _with_name(file, _read_bytes, file)
    frame = _with_name(file, unpack, data)
    print(
      f'{file}: {frame.height}x{frame.width} pixels, {len(data)} bytes, '
      f'{8 * len(data) / (frame.height * frame.width):.4g} bits per pixel, '
      f'model {frame.model.hex()}'
    )


def draw_curve(
  model: TrainedModel,
  files: list[str],
  folder: str,
  choices: list[Choice],
  metrics: Metrics,
  beside: Sequence[str] = (),
  searches: Sequence[int] = (0,),
) -> None:
  """Measures choices of a model beside JPEG, WebP and AVIF on the same images.

  Writes curve.md, curve.json and curve.png into a folder, and prints the
  tables: of all measurements, and of rates at equal PSNR.

  Args:
    beside: JSON files of codecs that were measured elsewhere on these images:
      `rows` with `codec`, `bits_per_pixel` and `psnr`, as in a curve.json.
    searches: as `search` of `encode_files`, each with each choice.

  Raises:
    InputError: a user error.
  """
  if metrics.of_sets:
    raise InputError(
      f'a curve has metrics of single images, not {", ".join(metrics.of_sets)}'
    )
  images = [_with_name(file, read_picture, file) for file in files]
  others = [row for file in beside for row in _measured_elsewhere(file)]
  check_folder(folder)
  coders = [*rate_distortion.classical(), *_coders(model, choices, searches)]
  shown = tqdm(coders, unit='setting', disable=None)
  rows = [rate_distortion.measure(coder, images, metrics) for coder in shown]
  classical = list(rate_distortion.CLASSICAL)
  for other in classical:
    gains = rate_distortion_curve.above(rows, other)
    for row, gain in zip(rows, gains, strict=True):
      row.setdefault('above', {})[other] = gain
  rates = bjontegaard.against([*rows, *others], classical)
  found = {
    'rows': rows,
    'elsewhere': others,
    'rates': rates,
    'protocol': {
      **protocol.PROTOCOL,
      **metrics.protocol,
      'classical': f'Pillow {PIL.__version__}; colours 4:2:0 unless named',
      'rates': bjontegaard.FORMULA,
      'images': [os.path.basename(file) for file in files],
      'weights': model.weights,
      'commit': provenance.commit(),
    },
  }
  base = os.path.join(folder, 'curve')
  table = rate_distortion_curve.table(rows)
  table += '\n' + rate_distortion_curve.rate_table(rates)
  write_text(f'{base}.json', as_json(found))
  write_text(f'{base}.md', table)
  print(table, end='', flush=True)
  with optional('curve.png'):
    rate_distortion_curve.plot(rows, f'{base}.png', others)


def _coders(
  model: TrainedModel, choices: list[Choice], searches: Sequence[int]
) -> Iterator[rate_distortion.Coder]:
  """The choices of a model as codecs to measure."""
  name = os.path.basename(os.path.normpath(model.path))
  for choice, search in itertools.product(choices, searches):
    codec, encode = _coding(model, choice, search)
    fields = comparison.describe_settings(choice.changes) or 'as trained'
    fields += ', context' if choice.context else ''
    fields += f', search {search}' if search else ''
    yield rate_distortion.Coder(name, fields, encode, codec.decode)


def _measured_elsewhere(file: str) -> list[dict]:
  """Reads rows of codecs; see `draw_curve`."""
  try:
    rows = json.loads(_with_name(file, _read_bytes, file))['rows']
    bjontegaard.against(rows, [row['codec'] for row in rows])  # as is needed
  except (ValueError, KeyError, TypeError) as error:
    raise InputError(
      f'{file} has no rows of codecs, as a curve.json has: {one_line(error)}'
    ) from error
  return rows


def _targets(files: list[str], folder: str, ending: str) -> dict[str, str]:
  """Makes the folder, and returns the targets in it: {target: file}.

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
  check_folder(folder)
  return targets


def _each(targets: dict[str, str], act: Callable[[str, str], None]) -> None:
  """Calls a function for each file and its target, with a progress bar."""
  for target, file in tqdm(targets.items(), unit='image', disable=None):
    _with_name(file, act, file, target)


def _with_name(file: str, act: Callable[..., Any], *args: Any) -> Any:
  """Calls a function; an InputError begins with the name of the file."""
  try:
    return act(*args)
  except InputError as error:
    raise InputError(f'{file}: {error}') from error


def _read_bytes(file: str) -> bytes:
  try:
    return read_bytes(file)
  except OSError as error:
    raise InputError(f'cannot be read: {one_line(error)}') from error


def read_picture(file: str) -> np.ndarray:
  """Returns the image of a file, uint8 [h, w, 3].

  Raises:
    InputError: it is no image, or cannot be read.
  """
  if is_folder(file):
    raise InputError('no image: a folder; name its files, as FOLDER/*.png')
  try:
    with as_local(file) as path:
      return read_image(path)
  except Exception as error:  # a damaged file may raise whatever it likes
    raise InputError(f'no image: {one_line(error)}') from error
