"""Times the data pipeline: images a second of CPU time, by source.

  python benchmarks/data.py

The images are --images crops of photographs inside scikit-image, JPEG of
quality 90, read, decoded, resized, cropped, flipped and put into batches of 32;
nothing is remembered but in the case that says so. CPU time is that of all
threads and processes. One interleaved run of --rounds; medians. Prints a table
in Markdown.

To measure another version of the library, put it into PYTHONPATH; cases that it
does not have are left out.
"""

import io
import itertools
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
from absl import app, flags
from PIL import Image
from skimage import data

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from lasers_jax.data import TrainPipeline, open_source
from lasers_jax.data.decoding import decode

try:
  from lasers_jax.data.packing import pack
  from lasers_jax.data.shards import Packing
  from lasers_jax.data.stored import Reduced
except ImportError:
  pack = None

_IMAGES = flags.DEFINE_integer('images', 128, 'Images of a case.')
_SECONDS = flags.DEFINE_float('seconds', 1.5, 'CPU time of a measurement.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds of the interleaved run.')
_CASES = flags.DEFINE_list('cases', [], 'Names of cases; all if empty.')
_LARGE, _HUGE = (375, 500), (768, 1024)


def crops(shape: tuple[int, int]) -> Iterator[np.ndarray]:
  """Yields crops of photographs that are a quarter larger."""
  rng, (height, width) = np.random.default_rng(0), shape
  size = width * 5 // 4, height * 5 // 4
  photographs = [
    np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    for image in (
      data.astronaut(),
      data.coffee(),
      data.chelsea(),
      data.rocket(),
    )
  ]
  for photograph in itertools.islice(
    itertools.cycle(photographs), _IMAGES.value
  ):
    top, left = rng.integers(height // 4), rng.integers(width // 4)
    yield photograph[top : top + height, left : left + width]


def write(folder: pathlib.Path, shape: tuple[int, int]) -> str:
  """Writes crops as JPEG into a folder; returns the name of the source."""
  (folder / 'train').mkdir(parents=True)
  for number, image in enumerate(crops(shape)):
    path = folder / 'train' / f'{number:04}.jpg'
    Image.fromarray(image).save(path, quality=90)
  return f'folder:{folder}'


def make_sources(root: pathlib.Path) -> dict[str, str]:
  """Writes the same images in all forms; returns names of sources."""
  large = write(root / 'large', _LARGE)
  found = {'large': large, 'huge': write(root / 'huge', _HUGE)}
  found['tiny'] = write(root / 'tiny', (32, 32))
  if pack is None:
    return found
  with tarfile.open(root / 'large-train.tar', 'w') as file:
    for path in sorted((root / 'large' / 'train').iterdir()):
      file.add(path, path.name)
  found['tar'] = f'tar:{root}/*.tar'
  for name, source, side in ('kept', 'large', None), ('packed', 'large', 256):
    opened = open_source(found[source], 'all')
    pack(opened, str(root / name), Packing(side))
    found[name] = f'records:{root / name}'
  return found


def cases(names: dict[str, str]) -> dict[str, Callable[[], TrainPipeline]]:
  """Returns what makes the pipeline of each case, by its name."""

  def made(name, size=256, resize=256, reduced=False, **more):
    def make() -> TrainPipeline:
      source = open_source(names[name], 'all')
      if reduced:
        source = Reduced(source, resize)
      more.setdefault('budget', 0)
      return TrainPipeline(source, 32, size, resize, **more)

    return make

  found = {
    'folder 500x375': made('large'),
    'folder 500x375 2 workers': made('large', workers=2),
    'folder 1024x768': made('huge'),
    'folder 32x32 in memory': made('tiny', 32, None, budget=1 << 30),
  }
  if pack is not None:
    found |= {
      'folder 1024x768 dct_scaling': made('huge', reduced=True),
      'tar 500x375': made('tar'),
      'records 500x375': made('kept'),
      'records --side=256': made('packed'),
      'records --side=256 2 workers': made('packed', workers=2),
    }
  return {
    name: make
    for name, make in found.items()
    if not _CASES.value or name in _CASES.value
  }


def cpu_seconds() -> float:
  """Returns the CPU time of this process and of those that work for it."""
  used = resource.getrusage(resource.RUSAGE_SELF)
  total = used.ru_utime + used.ru_stime
  for child in multiprocessing.active_children():
    with open(f'/proc/{child.pid}/stat', encoding='utf-8') as file:
      fields = file.read().rpartition(')')[2].split()
    total += (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
  return total


def measure(make: Callable[[], TrainPipeline]) -> float:
  """Returns the images a CPU second of one pipeline."""
  batches = make().iterate()
  for _ in range(max(6, _IMAGES.value // 32)):
    next(batches)
  start, count, taken = cpu_seconds(), 0, 0.0
  while taken < _SECONDS.value:
    for _ in range(8):
      next(batches)
    count, taken = count + 8 * 32, cpu_seconds() - start
  batches.close()
  return count / taken


def measure_decoding(name: str) -> float:
  """Returns the images a CPU second that are decoded, and no more."""
  paths = open_source(name, 'all').paths
  files = [pathlib.Path(path).read_bytes() for path in paths]
  start = cpu_seconds()
  for file in files:
    decode(io.BytesIO(file))
  return len(files) / (cpu_seconds() - start)


def main(_) -> None:
  with tempfile.TemporaryDirectory() as folder:
    names = make_sources(pathlib.Path(folder))
    measured = {
      'decoding alone 500x375': lambda: measure_decoding(names['large']),
      'decoding alone 1024x768': lambda: measure_decoding(names['huge']),
    }
    for name, make in cases(names).items():
      measured[name] = lambda make=make: measure(make)
    found = {name: [] for name in measured}
    for _ in range(_ROUNDS.value):
      for name, act in measured.items():
        found[name].append(act())
  print('| images | a CPU second |\n|---|---|')
  for name, rates in found.items():
    print(f'| {name} | {statistics.median(rates):.0f} |', flush=True)


if __name__ == '__main__':
  app.run(main)
