"""Trains an autoencoder, or resumes a run.

  python train.py --config=configs/photos.py:lasers --workdir=runs/photos

The same command resumes the run of the workdir. Every key of the config is also
a flag, such as --config.steps=1000 or --config.optimizer.learning_rate=1e-3.
The keys of a config, with their defaults, are in WORKDIR/config.json of a run
and in the classes of lasers_jax/experiment/settings.py.
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
