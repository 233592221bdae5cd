"""Measures a trained model over a whole split.

  python evaluate.py --workdir=runs/photos

Writes results.json and results.png into the workdir (or --output) and prints
one line.
"""

import json
import math
import os
import time

import jax
from absl import flags

from lasers_jax import scripts, settings
from lasers_jax.errors import InputError
from lasers_jax.evaluation import pictures, protocol
from lasers_jax.training import sharding, workdir
from lasers_jax.training.checkpoint import Checkpoints
from lasers_jax.training.optimizer import make_optimizer
from lasers_jax.training.state import (
  TrainState,
  evaluation_variables,
  state_shapes,
)

_STEP = flags.DEFINE_integer('step', None, 'Checkpoint; the newest if unset.')
_DATA = flags.DEFINE_string(
  'data', None, 'Other data: photos, a tfds name, or folder:PATH.'
)
_SPLIT = flags.DEFINE_string('split', None, 'Split; by default the test one.')
_WHOLE = flags.DEFINE_bool('whole', None, 'Whole pictures, not central crops.')
_S = flags.DEFINE_integer('S', None, 'Atoms for a site, if other than trained.')
_BATCH = flags.DEFINE_integer('batch_size', None, 'Images at a time.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder; the workdir if unset.')


def evaluate(
  path: str,
  step: int | None = None,
  data_changes: dict | None = None,
  bottleneck_changes: dict | None = None,
  batch_size: int | None = None,
  output: str | None = None,
) -> dict:
  """Evaluates a checkpoint of a workdir, and writes the results.

  Args:
    path: the workdir.
    step: the checkpoint; None takes the newest that is whole.
    data_changes, bottleneck_changes: keys of these sections of the config that
      are to differ from training.
    batch_size: images at a time; None takes that of the config.
    output: the folder to write to; None is the workdir.

  Returns:
    The results, as in results.json.

  Raises:
    InputError: something that the user can mend.
  """
  config = workdir.load_config(path)
  trained = settings.from_config(config)
  config['data'].update(data_changes or {})
  config['bottleneck'].update(bottleneck_changes or {})
  run = settings.from_config(config)

  # The model, and where it is computed
  size = batch_size or run.evaluation.batch_size
  mesh = sharding.make_mesh(data=math.gcd(size, jax.device_count()))
  state = restore(trained, path, step, mesh)
  variables = evaluation_variables(state)

  # The measurement
  started = time.time()
  source = run.data.open(run.data.test)
  batches = run.data.evaluation_batches(source, size, run.multiple)
  results = protocol.evaluate(run.model, variables, batches, mesh)
  results['protocol'] = {
    **protocol.PROTOCOL,
    **run.data.describe(run.data.test),
    'count': len(source),
    'step': int(state.step),
    'weights': protocol.weights_hash(variables),
    'averaged_weights': True,
    'bottleneck': config['bottleneck'],
    'commit': scripts.commit(),
    'seconds': round(time.time() - started, 1),
  }
  images = run.data.first_images(source, run.evaluation.pictures)
  picture = protocol.picture(run.model, variables, images, mesh)
  if jax.process_index() == 0:
    keep(results, picture, output or path)
  return results


def keep(results: dict, picture, folder: str) -> None:
  """Writes results.json and results.png."""
  os.makedirs(folder, exist_ok=True)
  text = json.dumps(results, indent=2) + '\n'
  workdir.write_text(os.path.join(folder, 'results.json'), text)
  pictures.save_png(os.path.join(folder, 'results.png'), picture)


def restore(
  run: settings.Settings, path: str, step: int | None, mesh
) -> TrainState:
  """Reads a checkpoint of a workdir to every device of a mesh."""
  optimizer = make_optimizer(run.optimizer, run.steps)
  shapes = state_shapes(run.model, optimizer, run.data.side)
  places = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
  target = sharding.with_shardings(shapes, places)
  with Checkpoints(path, read_only=True) as checkpoints:
    state = checkpoints.restore(target, step)
  if state is None:
    raise InputError(f'{path} has no checkpoint yet')
  return state


def main() -> None:
  if not scripts.WORKDIR.value:
    raise InputError('--workdir=FOLDER is needed')
  scripts.set_up_jax()
  data_changes = {
    'name': _DATA.value,
    'held_out': {} if _DATA.value else None,
    'test': _SPLIT.value,
    'whole': _WHOLE.value,
  }
  results = evaluate(
    scripts.WORKDIR.value,
    _STEP.value,
    {k: v for k, v in data_changes.items() if v is not None},
    {'S': _S.value} if _S.value is not None else {},
    _BATCH.value,
    _OUTPUT.value,
  )
  if jax.process_index() == 0:
    print(protocol.one_line(results))


if __name__ == '__main__':
  scripts.run(main)
