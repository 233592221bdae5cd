"""Trains an autoencoder, or resumes a run.

  lasers-jax train --config=photos:lasers --workdir=runs/photos

The same command resumes the run of the workdir. Every key of the config is also
a flag, such as --config.steps=1000 or --config.optimizer.learning_rate=1e-3.
The keys of a config, with their defaults, are in WORKDIR/config.json of a run
and in the classes of lasers_jax/experiment/settings.py.

  lasers-jax train --config=photos:lasers --dry_run=v5e:4x4,h100:8

compiles the step for machines that need not be there, and prints what it needs.
"""

from absl import flags

from lasers_jax.cli import command_line, dry_run, program
from lasers_jax.errors import InputError
from lasers_jax.experiment.dry_run import of_model
from lasers_jax.experiment.loop import train_and_evaluate


def define_flags() -> None:
  command_line.define_config()
  dry_run.define_flags()


def main() -> int:
  config, names = flags.FLAGS.config, flags.FLAGS.dry_run
  if config and names:
    found = config.to_dict()
    return dry_run.estimate(
      lambda: of_model(found), names, flags.FLAGS.dry_run_file
    )
  if not config or not program.WORKDIR.value:
    raise InputError('--config=FILE and --workdir=FOLDER are needed')
  program.set_up_jax(saves=True)
  state = train_and_evaluate(config.to_dict(), program.WORKDIR.value)
  return program.STOPPED if int(state.step) < config.steps else 0


def run() -> None:
  """Runs the program by the words of the command line."""
  define_flags()
  program.run(main, resumes=True)
