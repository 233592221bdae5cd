"""Trains a codec for photographs, and sets it beside JPEG at equal bytes.

  make demo
  python examples/demo.py --workdir=runs/demo --steps=800

The model is configs/codec.py:lasers without its filter of pixels; blocks start
as the cosines of JPEG. It is trained on seven photographs that come with
scikit-image and scikit-learn. Two others are encoded to files in WORKDIR/files
and decoded from there; beside them stands the smallest JPEG that has at least
as many bytes. Prints one line and writes WORKDIR/demo.png: the
photographs, both results, and the atoms that the files use most. Three minutes
on two CPU cores.
"""

import argparse
import io
import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

import lasers_jax as lj
from lasers_jax import inference
from lasers_jax.report.grids import grid

STEP = 0.3  # of the integers: about 0.25 bits per pixel
SHOWN = 256, 384  # pixels of each photograph, at full size
ATOMS, LINE = 60, 15  # shown, and in a line


class Coded(NamedTuple):
  """What a codec made of the photographs.

  Attributes:
    sizes: bytes of its files.
    psnr: in dB.
  """

  name: str
  images: list[np.ndarray]
  sizes: list[int]
  psnr: list[float]


def train(workdir: str, steps: int) -> lj.TrainedModel:
  """Returns a codec of photographs, its contexts fitted, too.

  Ends the program where training was asked to stop.
  """
  config = lj.config(
    'codec:lasers',
    data__name='photos',
    data__resize=256,
    data__whole=True,
    data__side=64,
    batch_size=16,
    # Contexts of more channels need more photographs, and a filter of pixels
    # learns nothing to speak of in so few steps.
    network__f=8,
    network__D=192,
    network__channels=192,
    network__filter_blocks=0,
    bottleneck__limit=127,
    optimizer__learning_rate=3e-4,
    steps=steps,
    evaluate_every=0,
    evaluation__batch_size=1,
    mesh__data=1,
  )
  model = lj.train(config, workdir)
  if model.step < steps:  # asked to stop
    sys.exit(f'stopped at step {model.step}: the same command goes on')
  model = model.with_(step=STEP)
  model.fit_codec(context=True)
  return model


def smallest_jpeg(image: np.ndarray, least: int) -> bytes:
  """Returns the smallest JPEG of an image that has at least so many bytes."""
  files = []
  for quality in range(1, 96):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=quality, optimize=True)
    files.append(buffer.getvalue())
  return min((x for x in files if len(x) >= least), key=len)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
  """Returns the PSNR of two images of uint8, in dB."""
  return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def code(
  model: lj.TrainedModel, images: list[np.ndarray], folder: pathlib.Path
) -> tuple[Coded, Coded]:
  """Encodes images to files and back, by a model and by JPEG."""
  folder.mkdir(exist_ok=True)
  found = Coded('lasers', [], [], []), Coded('JPEG', [], [], [])
  for i, image in enumerate(images):
    own, jpeg = folder / f'{i}.lz', folder / f'{i}.jpg'
    own.write_bytes(model.compress(image, context=True))
    jpeg.write_bytes(smallest_jpeg(image, own.stat().st_size))
    decoded = model.decompress(own.read_bytes()), np.asarray(Image.open(jpeg))
    for coded, file, result in zip(found, (own, jpeg), decoded, strict=True):
      coded.images.append(result)
      coded.sizes.append(file.stat().st_size)
      coded.psnr.append(psnr(image, result))
  return found


def draw(images: list[np.ndarray], coded: Sequence[Coded], atoms: np.ndarray):
  """Returns photographs above what codecs made of them, and atoms below."""
  rows, labels = [[middle(image) for image in images]], ['original']
  for one in coded:
    rows.append([middle(image) for image in one.images])
    pairs = zip(one.psnr, one.sizes, strict=True)
    words = [f'{quality:.1f} dB, {size:,} B' for quality, size in pairs]
    labels.append('\n'.join([one.name, *words]))
  lines = [
    atoms[start : start + LINE].repeat(2, axis=1).repeat(2, axis=2)
    for start in range(0, len(atoms), LINE)
  ]
  names = ['atoms used most', *[''] * (len(lines) - 1)]
  return grid([*rows, *lines], [*labels, *names], scale=1)


def middle(image: np.ndarray) -> np.ndarray:
  top, left = (
    (n - shown) // 2 for n, shown in zip(image.shape, SHOWN, strict=False)
  )
  return image[top : top + SHOWN[0], left : left + SHOWN[1]]


def most_used(model: lj.TrainedModel, images: list[np.ndarray]) -> np.ndarray:
  """Decodes the atoms that the codes of images use most, alone."""
  used = sum(np.count_nonzero(model.encode(x), axis=(0, 1)) for x in images)
  order = np.argsort(-used, kind='stable')[:ATOMS]
  atoms = inference.decode_atoms(
    model.module, model.mesh, model.variables, order
  )
  side = atoms.shape[1] // 5  # of a block; its atom is in the middle of five
  return np.asarray(atoms)[:, side : 4 * side, side : 4 * side]


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--workdir', default='runs/demo')
  parser.add_argument('--steps', type=int, default=800)
  given = parser.parse_args()
  logging.basicConfig(level=logging.INFO, format='%(message)s')
  for name in 'absl', 'jax':
    logging.getLogger(name).setLevel(logging.ERROR)
  workdir = pathlib.Path(given.workdir)
  model = train(given.workdir, given.steps)
  source = model.open_split('test')
  images = [source[i]['image'] for i in range(len(source))]
  coded = code(model, images, workdir / 'files')
  picture = draw(images, coded, most_used(model, images))
  Image.fromarray(picture).save(workdir / 'demo.png')
  words = [
    f'{x.name} {np.mean(x.psnr):.1f} dB in {sum(x.sizes):,} bytes'
    for x in coded
  ]
  print(
    f'{len(images)} photographs that training has not seen: {", ".join(words)};'
    f' {workdir}/demo.png'
  )


if __name__ == '__main__':
  main()
