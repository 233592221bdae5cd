"""Trains an autoencoder, or resumes a run.

  python train.py --config=configs/photos.py:lasers --workdir=runs/photos

The same command resumes the run of the workdir. Every key of the config is also
a flag, such as --config.steps=1000 or --config.optimizer.learning_rate=1e-3.
The keys of a config, with their defaults, are in WORKDIR/config.json of a run
and in the classes of lasers_jax/experiment/settings.py.

  python train.py --config=configs/photos.py:lasers --dry_run=v5e:4x4,h100:8

compiles the step for machines that need not be there, and prints what it needs.
"""

import dataclasses

import jax
from absl import flags

from lasers_jax.cli import command_line, program
from lasers_jax.core import machines, storage
from lasers_jax.errors import InputError
from lasers_jax.experiment import dry_run
from lasers_jax.experiment.loop import train_and_evaluate
from lasers_jax.report import estimates


def define_flags() -> None:
  command_line.define_config()
  flags.DEFINE_list(
    'dry_run',
    [],
    'Machines to compile the step for, instead of training: v5e:16x16, '
    f'2*v5e:4x4 (slices), h100:8, h100:2x8 (hosts), {machines.HERE}; of '
    f'{", ".join((*machines.TPUS, *machines.GPUS))}.',
  )
  flags.DEFINE(
    command_line.Path(),
    'dry_run_file',
    None,
    'JSON file for what --dry_run finds.',
  )


def main() -> int:
  config, names = flags.FLAGS.config, flags.FLAGS.dry_run
  if config and names:
    return estimate(config.to_dict(), names, flags.FLAGS.dry_run_file)
  if not config or not program.WORKDIR.value:
    raise InputError('--config=FILE and --workdir=FOLDER are needed')
  program.set_up_jax(saves=True)
  state = train_and_evaluate(config.to_dict(), program.WORKDIR.value)
  return program.STOPPED if int(state.step) < config.steps else 0


def estimate(config: dict, names: list[str], path: str | None) -> int:
  """Prints what the step of a config needs on some machines, and keeps it."""
  if machines.HERE in names:
    program.set_up_jax()
  else:
    jax.config.update('jax_platforms', 'cpu')
  found = dry_run.dry_run(config, names)
  if jax.process_index() == 0:
    print(estimates.table(found))
    if path:
      rows = [dataclasses.asdict(one) for one in found]
      storage.write_text(path, storage.as_json(rows))
  failed = [estimates.failure(one) for one in found if not one.fits]
  if failed:
    raise InputError('; '.join(failed))
  return 0


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, resumes=True)
