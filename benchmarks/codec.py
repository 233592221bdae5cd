"""Times codecs of whole images: megapixels a second, by part.

  python benchmarks/codec.py --output=speed-codec.json

The models are `photo-codec`, which comes along, and those of configs/photos.py
and of integers of configs/codec.py with random weights, initialized by a few
crops of a photograph: their bits say nothing of quality. Each codes an image of
--height x --width pixels to a file and back, on whatever device there is,
compilation apart. One interleaved run of --rounds; medians, and the median
percentage of the time that writing or reading the codes takes, on the host. The
choice of integers by their bits is not in it. Prints a table in Markdown.
"""

import statistics
import sys
import time
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
from absl import app, flags
from record import Record
from skimage import data

sys.path.append(str(Path(__file__).resolve().parents[1]))
import lasers_jax as lj
from configs import codec, photos
from lasers_jax.codec import State
from lasers_jax.codec.model import ModelCodec, fit_tables
from lasers_jax.core import sharding
from lasers_jax.experiment import settings
from lasers_jax.experiment.codecs import Choice

_HEIGHT = flags.DEFINE_integer('height', 512, 'Side of the image in pixels.')
_WIDTH = flags.DEFINE_integer('width', 768, 'Side of the image in pixels.')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Rounds of the interleaved run.')
_OUTPUT = flags.DEFINE_string('output', '', 'JSON file of the rows.')
CODECS = {  # of which configs, where the weights are random; with contexts
  'photo-codec': (None, False),
  'photo-codec, context': (None, True),
  'lasers': (photos, False),
  'lasers, context': (photos, True),
  'vq': (photos, False),
  'vq, context': (photos, True),
  'fsq': (photos, False),
  'residual': (photos, False),
  'entropy': (codec, False),
  'entropy, context': (codec, True),
}


def build(
  name: str, config: ModuleType | None, context: bool, image: np.ndarray
) -> ModelCodec:
  """Builds a codec; one of random weights is fitted to the image's codes."""
  name = name.partition(',')[0]
  if config is None:
    return lj.load(name).encoder(Choice(context=context))
  model = settings.from_config(config.get_config(name).to_dict()).model
  photograph = data.astronaut()
  crops = [photograph[i : i + 128, i : i + 128] for i in range(0, 320, 64)]
  images = np.stack(crops).astype(np.float32) / 255
  variables = model.init(jax.random.key(0), images)
  _, fitted = model.apply(
    variables,
    images,
    method='initialize',
    mutable=['params', 'codebook'],
    rngs={'bottleneck': jax.random.key(1)},
  )
  variables = {**variables, **fitted}
  height, width, _ = image.shape
  sides = {'height': np.array([height]), 'width': np.array([width])}
  batch = {'image': image[None], 'mask': np.ones(1, bool), **sides}
  tables = fit_tables(model, variables, [batch], context)
  state = State('none', {}, tables)
  mesh = sharding.make_mesh(data=1)
  return ModelCodec(model, variables, mesh, None, state)


def times(coder: ModelCodec, image: np.ndarray) -> tuple[float, ...]:
  """Returns the seconds to encode and decode, and of its range coder."""
  marks = [time.perf_counter()]

  def mark(value):
    marks.append(time.perf_counter())
    return value

  codes = mark(coder.codes_of(image))
  file = mark(coder.codec.write(codes, *image.shape[:2]))
  mark(coder.decode(file))
  mark(coder.codec.read(file))
  network, writing, decoding, reading = np.diff(marks)
  return network + writing, decoding, writing, reading


def main(_) -> None:
  image = np.tile(data.astronaut(), (2, 2, 1))
  image = np.ascontiguousarray(image[: _HEIGHT.value, : _WIDTH.value])
  coders = {name: build(name, *what, image) for name, what in CODECS.items()}
  found = {name: [] for name in coders}
  for i in range(_ROUNDS.value + 1):
    for name, coder in coders.items():
      measured = times(coder, image)
      if i:  # the first round compiles
        found[name].append(measured)
  size = f'{_HEIGHT.value}×{_WIDTH.value} pixels'
  record = Record(_OUTPUT.value, __doc__, image=size, rounds=_ROUNDS.value)
  print(f'{size}, {jax.devices()[0].device_kind}\n')
  print(
    '| codec | bits per pixel | encode, MP/s | % writing | decode, MP/s | '
    '% reading |\n|---|---|---|---|---|---|'
  )
  megapixels = image[..., 0].size / 1e6
  for name, rows in found.items():
    encode, decode, writing, reading = np.transpose(rows)
    row = {
      'bits_per_pixel': 8e-6 * len(coders[name].encode(image)) / megapixels,
      'encode': megapixels / statistics.median(encode),
      'encode_coder': 100 * statistics.median(writing / encode),
      'decode': megapixels / statistics.median(decode),
      'decode_coder': 100 * statistics.median(reading / decode),
    }
    record.add(name, **row)
    shown = [f'{x:.3g}' for x in row.values()]
    print(f'| `{name}` | {" | ".join(shown)} |')
  record.finish()


if __name__ == '__main__':
  app.run(main)
