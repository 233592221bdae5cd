"""Trains on CIFAR-10 from arrays until reconstructions are good enough.

  python benchmarks/train_to.py --make=cifar10.npz   # where the data set is
  python benchmarks/train_to.py --images=cifar10.npz

The model, losses and optimizer are those of configs/cifar10.py:--name; the
images lie on the device, and --batch of them, drawn anew and flipped at random,
make a step. Every --every steps the averaged weights reconstruct the test
images; PSNR is of uint8, the mean over images. It ends at --psnr, after --steps
or after --limit seconds of training, without compilation and evaluation. Needs
neither Grain nor tfds (but --make does). Prints the curve in Markdown.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from record import Record

sys.path.append(str(Path(__file__).resolve().parents[1]))
from configs import cifar10
from lasers_jax.core.images import to_float, to_uint8
from lasers_jax.experiment import settings
from lasers_jax.metrics.similarity import psnr
from lasers_jax.training.objective import make_objective
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.state import create_train_state
from lasers_jax.training.step import make_train_step

_IMAGES = flags.DEFINE_string('images', '', 'File that --make made.')
_MAKE = flags.DEFINE_string('make', '', 'File to make of CIFAR-10 by tfds.')
_COUNT = flags.DEFINE_integer('count', 50_000, 'Training images of --make.')
_TESTED = flags.DEFINE_integer('tested', 2_000, 'Test images of --make.')
_NAME = flags.DEFINE_string('name', 'lasers', 'Argument of the config.')
_PSNR = flags.DEFINE_float('psnr', 36.0, 'PSNR in dB to reach.')
_BATCH = flags.DEFINE_integer('batch', 128, 'Images in a batch.')
_STEPS = flags.DEFINE_integer('steps', 100_000, 'Steps at most.')
_EVERY = flags.DEFINE_integer('every', 1_000, 'Steps between evaluations.')
_LIMIT = flags.DEFINE_float('limit', 480, 'Seconds of training, at most.')
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


def build(images: np.ndarray):
  """Returns the state, and functions of a step and of reconstruction."""
  experiment = settings.from_config(cifar10.get_config(_NAME.value).to_dict())
  optimizer = make_optimizer(experiment.optimizer, _STEPS.value)
  objective, _ = make_objective(experiment.model, experiment.loss)
  step = make_train_step(objective, optimizer, experiment.optimizer.ema)
  data, model = jnp.asarray(images), experiment.model

  def one(state, data):
    key = jax.random.fold_in(jax.random.key(1), state.step)
    chosen, flipped = jax.random.split(key)
    rows = jax.random.randint(chosen, (_BATCH.value,), 0, len(data))
    batch = data[rows]
    mirror = jax.random.bernoulli(flipped, 0.5, (_BATCH.value, 1, 1, 1))
    return step(state, jnp.where(mirror, batch[:, :, ::-1], batch))[0]

  def reconstruct(state, batch):
    variables = {'params': state.ema_params, 'codebook': state.codebook}
    return model.apply(variables, to_float(batch)).images

  first = to_float(data[: _BATCH.value])
  state = create_train_state(model, optimizer, first, 0)
  one = jax.jit(one, donate_argnums=0).lower(state, data).compile()
  return state, lambda state: one(state, data), jax.jit(reconstruct)


def main(_) -> None:
  if _MAKE.value:
    return make(_MAKE.value)
  with np.load(_IMAGES.value) as file:
    images, tested = file['train'], file['test']
  record = Record(
    _JSON.value,
    __doc__,
    config=f'cifar10:{_NAME.value}',
    images=len(images),
    test_images=len(tested),
    batch=_BATCH.value,
    steps=_STEPS.value,
    limit=_LIMIT.value,
    target=_PSNR.value,
  )
  record.rows.clear()  # a run cannot go on
  state, step, reconstruct = build(images)
  print('| step | seconds | images a second | PSNR, dB |\n|---|---|---|---|')
  done, spent, reached = 0, 0.0, -np.inf
  while reached < _PSNR.value and done < _STEPS.value and spent < _LIMIT.value:
    start = time.perf_counter()
    for _ in range(_EVERY.value):
      state = step(state)
    jax.block_until_ready(state)
    spent += time.perf_counter() - start
    done += _EVERY.value
    parts = np.array_split(tested, -(-len(tested) // 500))
    values = [psnr(to_uint8(reconstruct(state, x)), x) for x in parts]
    reached = float(np.mean(np.concatenate(values)))
    rate = done * _BATCH.value / spent
    record.add(str(done), seconds=spent, images_a_second=rate, psnr=reached)
    print(f'| {done} | {spent:.1f} | {rate:.0f} | {reached:.2f} |', flush=True)
  record.finish()


if __name__ == '__main__':
  app.run(main)
