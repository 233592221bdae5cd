"""Trains an autoencoder, or goes on where a run stopped.

  python train.py --config=configs/photos.py:lasers --workdir=runs/photos

The same command resumes. What can be set stands in the config files; each key
is also a flag: --config.SECTION.KEY=VALUE.
"""

from absl import flags

from lasers_jax.cli import command_line, program
from lasers_jax.errors import InputError
from lasers_jax.experiment.loop import train_and_evaluate


def main() -> int:
  config = flags.FLAGS.config
  if not config or not program.WORKDIR.value:
    raise InputError('--config=FILE and --workdir=FOLDER are needed')
  program.set_up_jax(saves=True)
  state = train_and_evaluate(config.to_dict(), program.WORKDIR.value)
  return program.STOPPED if int(state.step) < config.steps else 0


def run() -> None:
  """Runs the program by the words of the command line."""
  command_line.define_config()
  program.run(main, resumes=True)
