"""Trains on CIFAR-10 from arrays until reconstructions are good enough.

  python benchmarks/train_to.py --make=cifar10.npz   # where the data set is
  python benchmarks/train_to.py --images=cifar10.npz --workdir=runs/to-36

A run of `lasers_jax.train` by configs/cifar10.py:--name. Every --every steps it
measures the test images of the file. It ends at --psnr, after --steps, or after
--limit seconds of steps, without compilation and validation; the same command
goes on. Needs neither Grain nor tfds (but --make does). Prints the curve in
Markdown.
"""

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from record import Record

sys.path.append(str(Path(__file__).resolve().parents[1]))
import lasers_jax as lj
from lasers_jax.evaluation import protocol

_IMAGES = flags.DEFINE_string('images', '', 'File that --make made.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/train_to', 'Of the run.')
_MAKE = flags.DEFINE_string('make', '', 'File to make of CIFAR-10 by tfds.')
_COUNT = flags.DEFINE_integer('count', 50_000, 'Training images of --make.')
_TESTED = flags.DEFINE_integer('tested', 2_000, 'Test images of --make.')
_NAME = flags.DEFINE_string('name', 'lasers', 'Argument of the config.')
_PSNR = flags.DEFINE_float('psnr', 36.0, 'PSNR in dB to reach.')
_BATCH = flags.DEFINE_integer('batch', 128, 'Images in a batch.')
_STEPS = flags.DEFINE_integer('steps', 100_000, 'Steps at most.')
_EVERY = flags.DEFINE_integer('every', 1_000, 'Steps between validations.')
_LIMIT = flags.DEFINE_float('limit', 480, 'Seconds of steps, at most.')
_JSON = flags.DEFINE_string('json', '', 'File of the results.')


def make(path: str) -> None:
  """Writes the first images of both splits: uint8 [n, 32, 32, 3]."""
  from lasers_jax.data.opening import open_source

  arrays = {}
  for split, count in (('train', _COUNT.value), ('test', _TESTED.value)):
    source = open_source('tfds:cifar10', split)
    count = min(count, len(source))
    arrays[split] = np.stack([source[i]['image'] for i in range(count)])
  np.savez_compressed(path, **arrays)


class Enough(Exception):
  """Ends a run: the last checkpoint is that of the last validation."""


class Curve(lj.Hooks):
  """Keeps PSNR against seconds, and ends the run when that is enough."""

  def __init__(self, record: Record):
    self._record = record
    last = max(record.rows.values(), key=lambda row: row['step'], default={})
    self._before = last.get('seconds', 0.0)
    self._seconds, self._steps, self._last = 0.0, 0, None

  def on_step(self, step, metrics):
    now = time.perf_counter()
    if self._last is not None:  # not the first after a pause
      self._seconds += now - self._last
      self._steps += 1
    self._last = now

  def on_results(self, step, results):
    self._last = None
    psnr = protocol.scalars(results, 'test')['test/psnr']
    seconds = self._before + self._seconds
    rate = self._steps * _BATCH.value / self._seconds
    self._record.add(
      str(step), step=step, seconds=seconds, images_a_second=rate, psnr=psnr
    )
    print(f'| {step} | {seconds:.1f} | {rate:.0f} | {psnr:.2f} |', flush=True)
    if psnr >= _PSNR.value or step >= _STEPS.value:
      self._record.finish()
      raise Enough
    if self._seconds >= _LIMIT.value:
      raise Enough


def main(_) -> None:
  if _MAKE.value:
    return make(_MAKE.value)
  with np.load(_IMAGES.value) as file:
    data = {'train': file['train'], 'validation': file['test']}
  config = lj.config(
    'cifar10',
    bottleneck=_NAME.value,
    steps=_STEPS.value,
    batch_size=_BATCH.value,
    evaluate_every=_EVERY.value,
    checkpoint_every=_EVERY.value,
  )
  record = Record(
    _JSON.value,
    __doc__,
    config=f'cifar10:{_NAME.value}',
    images=len(data['train']),
    test_images=len(data['validation']),
    batch=_BATCH.value,
    target=_PSNR.value,
  )
  print('| step | seconds | images a second | PSNR, dB |\n|---|---|---|---|')
  with contextlib.suppress(Enough):
    lj.train(config, _WORKDIR.value, data=data, hooks=Curve(record))


if __name__ == '__main__':
  app.run(main)
